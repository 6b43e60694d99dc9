"""That the tables of the README and the results pages are those of the committed rows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from benchmarks.report.page import BLOCK, shown_in_readme
from benchmarks.studies import STUDIES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
COMMAND = "python -m benchmarks report {name} --results benchmarks/results"
MEASURED = sorted(path.parent.name for path in RESULTS.glob("*/rows.jsonl"))
#: ``<!-- summary of STUDY -->``, followed by the ``summary.md`` of its report.
SUMMARY = re.compile(r"<!-- summary of ([\w-]+) -->\n(.*?)\n<!-- end -->", re.DOTALL)
SUMMARIES = dict(SUMMARY.findall((ROOT / "README.md").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Copy the results, to write figures there; all of them, since a report may read those of another study."""
    return Path(shutil.copytree(RESULTS, tmp_path_factory.mktemp("results"), dirs_exist_ok=True))


def test_that_the_readme_shows_what_was_measured() -> None:
    assert SUMMARIES.keys() <= set(MEASURED)


@pytest.mark.parametrize("name", MEASURED)
def test_that_what_is_shown_was_measured(cheap, results, name) -> None:
    report = STUDIES[name].report(results / name)
    readme = RESULTS / name / "README.md"
    (shown,) = BLOCK.findall(readme.read_text(encoding="utf-8"))
    assert shown == shown_in_readme(report), f"{readme} is not what `{COMMAND.format(name=name)}` writes into it"
    if name in SUMMARIES:
        summary = (results / name / "summary.md").read_text(encoding="utf-8")
        assert SUMMARIES[name].strip() == summary.strip(), (
            f"README.md is not what `{COMMAND.format(name=name)}` writes to summary.md"
        )
