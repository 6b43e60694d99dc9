"""That the tables of the README and the results pages are those of the committed rows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import rsam
from benchmarks.report.opening import ANSWER
from benchmarks.report.page import PAGE, shown_in_readme
from benchmarks.studies import STUDIES
from benchmarks.studies.claims import PICTURE, draw_claims, said
from benchmarks.studies.study import ROWS, NothingToReport

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
COMMAND = "python -m benchmarks report {name} --results benchmarks/results"
SHOWN, TRAINED = ({path.parent.name for path in RESULTS.glob(f"*/{file}")} for file in (PAGE, ROWS))


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Copy the results, to write figures there; all of them, since a report may read those of another study."""
    return Path(shutil.copytree(RESULTS, tmp_path_factory.mktemp("results"), dirs_exist_ok=True))


@pytest.fixture
def first_picture_only(monkeypatch) -> None:
    """Other figures are not rendered, which is what takes the time of a report."""
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, path, **o: save(self, path, **o) if path.name == ANSWER else path.touch()
    )


def words(path: Path) -> list[str]:
    """Read the words of a figure from the comments that its file has for each."""
    return re.findall("<!-- (.*?) -->", path.read_text(encoding="utf-8"))


def test_that_the_picture_of_the_claims_is_drawn_from_the_rows(results, tmp_path) -> None:
    draw_claims(results, tmp_path / "claims.svg")
    message = f"{PICTURE} is not what `python -m benchmarks claims` draws"
    assert words(tmp_path / "claims.svg") == words(ROOT / PICTURE), message


@pytest.mark.parametrize(
    ("warning", "line"),
    [("", "- **C1 holds** at last."), ("- **Preliminary**: without one.\n", "- Preliminary: **C1 holds** at last.")],
)
def test_that_verdicts_over_a_part_of_the_networks_are_called_preliminary(warning, line, tmp_path) -> None:
    for study, page in (
        ("population", f"# Title\n\n{warning}- **C1 holds** at last.\n\n## More\n"),
        ("optimizers", "# Title\n"),
    ):
        (tmp_path / study).mkdir()
        (tmp_path / study / "README.md").write_text(page)
    first, second, *_ = said(tmp_path)
    assert first.startswith(line)
    assert second.startswith("- **C2, not measured yet:**")


@pytest.mark.parametrize("name", sorted(TRAINED - SHOWN))
def test_that_rows_without_a_page_are_too_few_for_one(results, name) -> None:
    with pytest.raises(NothingToReport):
        STUDIES[name].report(results / name)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_that_what_is_shown_was_measured(first_picture_only, results, name) -> None:
    report = STUDIES[name].report(results / name)
    readme = (RESULTS / name / "README.md").read_text(encoding="utf-8")
    command = f"`{COMMAND.format(name=name)}`"
    assert readme == shown_in_readme(report, readme), f"{name}/README.md is not what {command} writes into it"
    # question, picture and verdicts come first, and nothing of the report is left out
    top = [part for part in readme.split("\n\n") if part != "<!-- report -->"][1:4]
    assert top[0].removeprefix("<!-- report -->\n").endswith("?")
    claims = re.findall(r"^- \*\*(C\d)", readme.split("\n## ")[0], re.MULTILINE)
    assert claims == sorted(claims)
    if (RESULTS / name / ANSWER).exists():
        assert top.pop(1).endswith(f"]({ANSWER})")
        assert words(RESULTS / name / ANSWER) == words(results / name / ANSWER), f"{ANSWER} is not what {command} draws"
    else:
        assert top[1].startswith("- **Preliminary**"), f"{name} has no {ANSWER}"
    assert top[1].startswith("- **")
    assert readme.count("\n| ") == report.count("\n| ")


def test_that_figures_in_tables_of_the_guide_are_rows_of_a_report() -> None:
    reports = RESULTS.glob("*/README.md")
    committed = {line for report in reports for line in report.read_text(encoding="utf-8").splitlines()}
    figures = [
        (page.name, line)
        for page in (ROOT / "docs" / "guide").rglob("*.md")
        if page.name != "choose.md"  # whose gradients are counted
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and re.search(r"\d\.\d+ *\|$", line)
    ]
    assert figures
    assert [(page, line) for page, line in figures if line not in committed] == []


def test_that_the_guide_and_the_docstring_say_how_many_intervals_hold_the_trace() -> None:
    table = (RESULTS / "estimators" / "README.md").read_text(encoding="utf-8").split("### Intervals\n")[1]
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if re.match(r"\| .*[Ee]LU", line)]
    hutchinson, xtrace = (sorted(float(row[column]) for row in rows[:4]) for column in (2, 4))
    for text in ((ROOT / "docs" / "guide" / "curvature.md").read_text(encoding="utf-8"), rsam.curvature.trace.__doc__):
        shown = [tuple(map(float, found)) for found in re.findall(r"(\d\d\.?\d?) to (\d\d\.?\d?) %", text)]
        assert set(shown) == {(hutchinson[0], hutchinson[-1]), (xtrace[0], xtrace[-1])}
