"""That reports open in a browser at the widths of a desk and of a phone, show their picture, and sort their tables."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.page import write_report
from benchmarks.run import Row
from benchmarks.runs.results import Results
from benchmarks.studies import STUDIES
from benchmarks.studies.comparison.contest import compete
from benchmarks.studies.images import OPTIMIZERS
from tests.benchmarks.fakes import fake_measured_train
from tests.browser import CHROMIUM, QUIET, SCREENS

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),  # all tests share one page
]
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
#: The quick comparison with made-up rows, and committed ones of every other kind of report that is cheap to make.
PAGES = ("optimizers", "spd", "estimators", "overhead")

MEASURE = """
const shown = element => element.getClientRects().length > 0;
const boxes = [...document.querySelectorAll(".scroll")];
const scrolls = box => box.scrollWidth > box.clientWidth;
const hinted = box => box.previousElementSibling?.className === "hint" && shown(box.previousElementSibling);
const outside = [...document.querySelectorAll("body *")].filter(element => {
  const { left, right } = element.getBoundingClientRect();
  return shown(element) && !element.closest(".scroll, pre") && (left < 0 || right > innerWidth);
});
const cut = [...document.querySelectorAll("th, td, p, li, h1, h2, h3")].filter(
  element => shown(element) && element.scrollWidth > element.clientWidth + 1);
const wide = boxes.filter(scrolls);
const stays = wide.map(box => {
  box.scrollLeft = box.scrollWidth;
  const first = box.querySelector("td").getBoundingClientRect(), last = box.querySelector("tr").lastElementChild;
  const end = last.getBoundingClientRect(), frame = box.getBoundingClientRect();
  return Math.abs(first.left - frame.left) <= 1 && end.right <= frame.right + 1 && end.left >= first.right;
});
const picture = document.images[0].getBoundingClientRect();
return {
  width: document.documentElement.scrollWidth,
  images: [...document.images].filter(image => image.complete && image.naturalWidth > 0).length,
  picture: [picture.top, picture.bottom],
  tables: boxes.length,
  wide: wide.length,
  hinted: boxes.every(box => hinted(box) === scrolls(box)),
  stays: stays.every(Boolean),
  outside: outside.map(element => element.outerHTML.slice(0, 80)),
  cut: cut.map(element => element.textContent.slice(0, 80)),
};
"""


def opened(page: Path, profile: Path) -> tuple[str, list[str]]:
    """Return the document once it is loaded, and the lines of the console."""
    command = [str(CHROMIUM), *QUIET, "--window-size=1400,1000", f"--user-data-dir={profile}", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def asked(page: Path, directory: Path, script: str, screen: tuple[int, int]) -> Any:
    """Return what a script returns in a loaded page; assert that the console stays silent.

    The page is in a frame of the size of the screen, since no window is as narrow as a phone.
    """
    width, height = screen
    told = f"""<script>addEventListener("load", () => {{
      parent.document.title = JSON.stringify((() => {{ {script} }})());
    }});</script></body>"""
    inner = page.read_text(encoding="utf-8").replace("</body>", told)
    frame = directory / "frame.html"
    frame.write_text(
        "<!DOCTYPE html><title>nothing was told</title>"
        f'<iframe srcdoc="{html.escape(inner)}" width="{width}" height="{height}" style="border: 0"></iframe>',
        encoding="utf-8",
    )
    document, console = opened(frame, directory / "profile")
    assert console == []
    (title,) = re.findall("<title>(.*?)</title>", document)
    return json.loads(html.unescape(title))


def quick_comparison(directory: Path) -> str:
    """Report made-up rows of the quick comparison."""
    study, results = OPTIMIZERS.quick(), Results(directory / "rows.jsonl", Row)

    def collect(runs):
        rows = [fake_measured_train(run) for run in runs]
        for row in rows:
            results.append(row)
        return rows

    for case in study.cases:
        compete(case, collect, study.protocol)
    return study.report(directory)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Callable[[str], Path]:
    """Makes the page of a study, once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            directory = tmp_path_factory.mktemp(name) / name
            if name == "optimizers":
                directory.mkdir()
                text = quick_comparison(directory)
            else:
                shutil.copytree(RESULTS / name, directory)
                text = STUDIES[name].report(directory)
            made[name] = write_report(text, directory)[1]
        return made[name]

    return make


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("name", PAGES)
def test_that_a_page_fits_the_screen_with_its_picture_in_view_and_all_that_is_wide_to_be_scrolled(
    page, tmp_path, name, screen
) -> None:
    width, height = SCREENS[screen]
    path = page(name)
    found = asked(path, tmp_path, MEASURE, SCREENS[screen])
    text = path.with_name("report.md").read_text(encoding="utf-8")
    assert found["width"] == width
    assert found["images"] == len(re.findall(r"^!\[", text, re.MULTILINE)) > 0
    assert 0 < found["picture"][0] < found["picture"][1] <= height
    assert found["tables"] == len(re.findall(r"^\| -", text, re.MULTILINE))
    assert found["wide"] > 0 or screen == "desk"
    assert found["hinted"]
    assert found["stays"]
    assert found["outside"] == found["cut"] == []


def test_that_errors_would_be_seen(tmp_path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text("<script>nothing.like.that()</script>", encoding="utf-8")
    _, console = opened(page, tmp_path / "profile")
    assert len(console) == 1
    assert "nothing is not defined" in console[0]


def test_that_a_table_sorts_by_a_column_up_then_down_then_as_it_was(tmp_path) -> None:
    rows = ("10.5 ± 0.1", "word"), ("-2 ± 30", ""), ("1,200", "b < a"), ("9e-05 (short)", "2"), ("< 0.001", "Word")
    table = "\n".join(f"| row {i} | {number} | {text} |" for i, (number, text) in enumerate(rows))
    page = write_report(f"# T\n\n| name | number | text |\n| --- | ---: | --- |\n{table}\n", tmp_path)[1]
    script = """
    const order = () => [...document.querySelectorAll("tbody tr")].map(row => row.cells[0].textContent.at(-1)).join("");
    const states = () => [...document.querySelectorAll("th")].map(heading => heading.ariaSort).join();
    const found = [order() + " " + states()];
    for (const column of [1, 1, 1, 2, 2, 0]) {
      const button = document.querySelectorAll("th button")[column];
      button.focus();
      if (document.activeElement !== button) found.push("no focus");
      button.click();
      found.push(order() + " " + states());
    }
    return found;
    """
    assert asked(page, tmp_path, script, SCREENS["desk"]) == [
        "01234 ,,",
        "13402 ,ascending,",  # -2, 0.00009, 0.001, 10.5, 1200
        "20431 ,descending,",
        "01234 ,,",
        "32041 ,,ascending",  # 2, then words whatever their case, then what is blank
        "34021 ,,descending",
        "01234 ascending,,",
    ]
