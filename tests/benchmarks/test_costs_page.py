"""That the page of costs and its picture are made of rows alone, with intervals."""

from __future__ import annotations

import re
from dataclasses import asdict, replace

import pytest
import scipy.stats

from benchmarks.runs.results import Results
from benchmarks.studies.overhead import OVERHEAD, optimizers, spread
from benchmarks.studies.overhead.figures import factor_groups
from benchmarks.studies.overhead.section import Measured
from benchmarks.studies.overhead.timing import rounded
from tests.benchmarks.made_costs import HIGH, LOW, MACHINE, REPEATS, made_data, made_rows, shown


def page(tmp_path, rows: dict[str, Measured]) -> str:
    results = Results(tmp_path / "rows.jsonl", Measured)
    for row in rows.values():
        results.append(row)
    return OVERHEAD.report(tmp_path)


def test_that_the_page_shows_every_ratio_with_its_interval(tmp_path) -> None:
    text = page(tmp_path, made_rows())
    sections = {part.split("\n")[0]: part for part in text.split("\n### ")[1:]}
    for title, figures in {
        "Optimizers": [shown(2.0)],
        "Steps": [shown(1.2, 3)],
        "Savings": [shown(2.0), shown(1.25, 3), "1.125 (1.116–1.134)"],
        "Hessian-vector products, pooled_cnn": [shown(2.0), shown(4.0)],
        "Hessian-vector products, wide_cnn": [shown(2.0), shown(4.0)],
        "Traces": [shown(3.0), shown(1.5)],
        "Penalties": [shown(2.5)],
        "Margins": [shown(1.2)],
        "Landscape": [shown(1.4)],
    }.items():
        for figure in figures:
            assert f"| {figure}" in sections[title] or f" {figure} |" in sections[title], (title, figure)
        assert f"edians of {REPEATS} interleaved repeats" in sections[title]
    assert re.search(r"3\.0 \| +3\.00 \|", sections["Memory"])
    assert text.count(MACHINE) == 1
    assert (tmp_path / "answer.svg").exists()


def test_that_each_machine_is_named_with_what_it_measured(tmp_path) -> None:
    rows = made_rows()
    rows["margins"] = replace(rows["margins"], machine="Another one.")
    text = page(tmp_path, rows)
    assert "\n\nMargins: Another one.\n\n" in text
    assert f"; Penalties; Landscape: {MACHINE}\n\n" in text


@pytest.mark.parametrize("factor", [0.5, 5.0, 20.0])
def test_that_the_picture_shows_the_factors_with_intervals_and_which_are_short(factor) -> None:
    data = made_data(factor)["optimizers"]
    groups = factor_groups(data)
    assert [group.mark for group in groups] == pytest.approx([15, 6, 1, 1 / 1.15])
    lines = [(group.mark, line) for group in groups for line in group.lines]
    assert len(lines) == 2 * len(optimizers.CASES)
    for mark, line in lines:
        assert (line.interval.low, line.interval.high) == pytest.approx((LOW * factor, HIGH * factor))
        short = factor < mark
        assert (line.tone, "short" in line.verdict) == (("worse", True) if short else ("better", False))
    verdict = optimizers.report(data).verdict
    for case in optimizers.CASES:
        assert (case.label in verdict) == (factor < case.factor)


def test_that_the_ratio_of_spreads_has_the_interval_of_an_f_test() -> None:
    few, many = [90.0, 110.0, 100.0, 95.0], [99.0, 101.0, 100.0, 99.5]
    actual = spread.spread_ratio({"hutchinson": few, "xtrace": many})
    relative = {"few": [x / (sum(few) / 4) for x in few], "many": [x / (sum(many) / 4) for x in many]}
    variances = {name: scipy.stats.tvar(values) for name, values in relative.items()}
    assert actual.estimate**2 == pytest.approx(variances["many"] / variances["few"])
    # at an end, the two-sided test that the true ratio is there has p = 0.05
    for end in (actual.low, actual.high):
        statistic = actual.estimate**2 / end**2
        p = 2 * min(scipy.stats.f.cdf(statistic, 3, 3), scipy.stats.f.sf(statistic, 3, 3))
        assert p == pytest.approx(0.05)


def test_that_times_keep_four_digits() -> None:
    assert rounded({"a": [0.123456, 12345.6]}) == {"a": [0.1235, 12350.0]}


def test_that_rows_are_read_back_as_they_were_written(tmp_path) -> None:
    rows = made_rows()
    page(tmp_path, rows)
    assert [asdict(row) for row in OVERHEAD.rows(tmp_path).values()] == [asdict(row) for row in rows.values()]
