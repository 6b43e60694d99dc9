"""That reports show the numbers of the rows."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from benchmarks.report.curves import draw_learning_curves
from benchmarks.report.intervals import t_interval
from benchmarks.report.table import markdown_table
from benchmarks.studies import quick
from tests.benchmarks.fakes import row_of


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [0.7, 0.7, 0.7], list(np.random.default_rng(0).normal(size=9))])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_that_the_interval_is_that_of_the_t_test(values, confidence) -> None:
    interval = t_interval(values, confidence)
    assert interval.mean == pytest.approx(np.mean(values))
    if np.ptp(values) == 0:
        assert interval.half_width == pytest.approx(0)
    else:
        reference = scipy.stats.ttest_1samp(values, 0).confidence_interval(confidence)
        assert interval.mean - interval.half_width == pytest.approx(reference.low)
        assert interval.mean + interval.half_width == pytest.approx(reference.high)


def test_that_one_value_has_no_interval() -> None:
    assert f"{t_interval([2.0]):.1f}" == "2.0"
    assert f"{t_interval([1.0, 3.0]):.1f}" == "2.0 ± 12.7"


def test_that_tables_are_aligned() -> None:
    rows = [("a long name", "9.5 ± 0.1", "yes", "< 0.001"), ("b", "10.5 ± 10.1", "undecided", "")]
    assert markdown_table(("method", "accuracy", "so", "p"), rows).splitlines() == [
        "| method      |    accuracy | so        |       p |",
        "| ----------- | ----------: | --------- | ------: |",
        "| a long name |   9.5 ± 0.1 | yes       | < 0.001 |",
        "| b           | 10.5 ± 10.1 | undecided |         |",
    ]


def quick_rows(accuracies: dict[str, float]) -> list:
    """Make rows of the quick study whose three seeds differ by one per cent."""
    return [
        row_of(run, accuracies[run.method] + 0.01 * (run.seed - 1))
        for run in quick.QUICK.runs
        if run.method in accuracies
    ]


def test_that_quick_reports_each_method_and_says_where(tmp_path) -> None:
    text = quick.report(quick_rows({"sgd": 0.7, "sam": 0.75, "rsam": 0.8}), tmp_path)
    half_width = scipy.stats.t.ppf(0.975, 2) / 3**0.5
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["SGD", f"70.0 ± {half_width:.1f}", "90.0 ± 0.0", "10.0 ± 0.0"] in cells
    assert ["RSAM, spheres", f"80.0 ± {half_width:.1f}", "90.0 ± 0.0", "10.0 ± 0.0"] in cells
    assert "- **SAM − SGD:** 5.0 ± 0.0 points" in text
    for name in ("answer.svg", "learning_curves.svg"):
        assert f"]({name})" in text
        assert b"<svg" in (tmp_path / name).read_bytes()


def test_that_many_methods_can_be_drawn(tmp_path) -> None:
    rows = {f"method {i}": quick_rows({"sgd": i / 10}) for i in range(9)}
    draw_learning_curves(rows, tmp_path / "many.svg")
    drawn = (tmp_path / "many.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in drawn for name in rows)
