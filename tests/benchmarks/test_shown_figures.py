"""That the tables of README and docs are those of the committed results."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from benchmarks.studies import STUDIES
from benchmarks.studies.study import NothingToReport

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
#: ``<!-- summary of STUDY -->``, then what its report wrote to ``summary.md``.
BLOCK = re.compile(r"<!-- summary of ([\w-]+) -->\n(.*?)\n<!-- end -->", re.DOTALL)
SHOWN = {
    name: (page.relative_to(ROOT), text)
    for page in (ROOT / "README.md", *sorted(RESULTS.glob("*/README.md")))
    for name, text in BLOCK.findall(page.read_text(encoding="utf-8"))
}


def test_that_what_was_measured_is_shown(tmp_path) -> None:
    measured = {path.parent.name for path in RESULTS.glob("*/*.jsonl")}
    assert measured >= SHOWN.keys()
    shutil.copytree(RESULTS, tmp_path, dirs_exist_ok=True)
    # rows of what is still being run are kept, and say nothing yet
    for name in measured - SHOWN.keys() - {"estimators"}:
        with pytest.raises(NothingToReport):
            STUDIES[name].report(tmp_path / name)


@pytest.mark.parametrize("name", SHOWN)
def test_that_what_is_shown_was_measured(name, tmp_path) -> None:
    page, text = SHOWN[name]
    # a report may read the results of another study beside its own
    shutil.copytree(RESULTS, tmp_path, dirs_exist_ok=True)
    STUDIES[name].report(tmp_path / name)
    summary = (tmp_path / name / "summary.md").read_text(encoding="utf-8")
    assert text.strip() == summary.strip(), (
        f"{page} is not what `python -m benchmarks report {name} --results benchmarks/results` writes to summary.md"
    )
