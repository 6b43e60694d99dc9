"""That a report opens in a browser without messages on its console, and fits a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.report.page import write_report
from benchmarks.run import Row
from benchmarks.runs.results import Results
from benchmarks.studies.comparison.contest import compete
from benchmarks.studies.images import OPTIMIZERS
from tests.benchmarks.fakes import fake_measured_train

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.xdist_group("browser"),  # all tests share one page
]
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
]


def opened(page: Path, profile: Path, width: int = 1000) -> tuple[str, list[str]]:
    """Load a page in a browser; return the document and the lines of the console."""
    size = [f"--window-size={width},800", f"--user-data-dir={profile}"]
    command = [str(CHROMIUM), *QUIET, *size, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Write the page of a small comparison with made-up rows."""
    directory = tmp_path_factory.mktemp("report")
    study, results = OPTIMIZERS.quick(), Results(directory / "rows.jsonl", Row)

    def collect(runs):
        rows = [fake_measured_train(run) for run in runs]
        for row in rows:
            results.append(row)
        return rows

    for case in study.cases:
        compete(case, collect, study.protocol)
    return write_report(study.report(directory), directory)[1]


def test_that_it_opens_with_all_its_figures_and_nothing_on_the_console(page, tmp_path) -> None:
    document, console = opened(page, tmp_path)
    assert console == []
    assert document.count("<img") == 3 * len(OPTIMIZERS.quick().cases)
    assert "<h2>Verdicts</h2>" in document


def test_that_errors_would_be_seen(tmp_path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text("<script>nothing.like.that()</script>", encoding="utf-8")
    _, console = opened(page, tmp_path / "profile")
    assert len(console) == 1
    assert "nothing is not defined" in console[0]


def test_that_it_fits_a_phone_and_shows_its_figures(page, tmp_path) -> None:
    # this script, not part of the page, measures the page in a frame as wide as a phone
    script = """<script>addEventListener("load", () => {
      const figures = [...document.images].filter(image => image.complete && image.naturalWidth > 0);
      parent.postMessage([document.documentElement.scrollWidth, innerWidth, figures.length].join(" "), "*");
    });</script>"""
    copy, frame = tmp_path / "copy.html", tmp_path / "frame.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    frame.write_text(
        "<title>waiting</title><script>onmessage = event => { document.title = event.data; };</script>"
        '<iframe src="copy.html" width="390" height="800" style="border: 0"></iframe>',
        encoding="utf-8",
    )
    document, _ = opened(frame, tmp_path / "profile")
    found = re.search(r"<title>(\d+) (\d+) (\d+)</title>", document)
    assert found is not None, document[:200]
    needed, there, figures = map(int, found.groups())
    assert needed <= there == 390
    assert figures == 3 * len(OPTIMIZERS.quick().cases)
