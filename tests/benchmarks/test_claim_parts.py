"""That the parts shared by all claims are right."""

from __future__ import annotations

import math

import pytest

from benchmarks.studies.comparison.tables import measured
from benchmarks.studies.images import claims
from benchmarks.studies.images.claims import CURVATURES, PENALTIES, c4, c5, c6, differences, positive
from tests.benchmarks.entries import made_case, made_entry, made_row
from tests.benchmarks.verdicts import A_LITTLE, COUNTS, HALVED, NEARLY, number, text_of


@pytest.mark.parametrize("verdict", [c4, c5, c6])
def test_that_one_seed_decides_nothing(verdict) -> None:
    case = made_case(("sgd", "sam", "gradient_norm", "hessian_trace", "rsam", "rsam_stiefel"))
    entries = [
        made_entry(case, name, [0.5 - 0.03 * i], {key: [1.0 + i] for key in (*CURVATURES, "trace_error")})
        for i, name in enumerate(c.name for c in case.contestants)
    ]
    actual = verdict([entries])
    assert actual.outcome == "undecided"
    assert all(math.isnan(comparison.p) for _, comparison in actual.evidence)


def test_that_a_trace_that_is_not_positive_counts_as_its_standard_error() -> None:
    run = made_entry(made_case(), "sgd", [0.5]).rows[0].run

    def of(value: float, error: float) -> float:
        return positive(made_row(run, measures={"trace": value, "trace_error": error}), "trace")

    assert of(3.0, 0.5) == 3.0
    assert of(0.2, 0.5) == 0.2
    assert of(-3.0, 0.5) == 0.5
    assert of(0.0, 0.5) == 0.5
    assert 0 < of(-3.0, 0.0) < 1e-9
    assert math.isnan(positive(made_row(run, diverged=True), "trace"))


def test_that_a_measure_is_nan_where_it_was_not_taken() -> None:
    run = made_entry(made_case(), "sgd", [0.5]).rows[0].run
    assert measured(made_row(run, measures={"trace": 2.0}), "trace") == 2.0
    assert math.isnan(measured(made_row(run, diverged=True), "trace"))


def test_that_differences_are_in_points_and_signed() -> None:
    case = made_case()
    sgd, sam = made_entry(case, "sgd", [0.51, 0.4]), made_entry(case, "sam", [0.5, 0.6])
    assert differences(sgd, sam) == pytest.approx([1.0, -20.0])
    assert differences(sam, sgd) == pytest.approx([-1.0, 20.0])
    with pytest.raises(ValueError, match="shorter"):
        differences(sgd, made_entry(case, "sam", [0.5]))


def test_that_the_thresholds_are_those_that_were_fixed_before_the_runs() -> None:
    assert (COUNTS, HALVED, NEARLY, A_LITTLE) == (0.3, -1, -0.2, 0.2)


def test_that_the_rules_say_what_is_counted() -> None:
    words = {2: "two", 4: "four"}
    assert f"simultaneous for the {words[len(CURVATURES)]} measures" in text_of("C4")
    assert f"simultaneous for all {words[2 * len(PENALTIES)]}" in text_of("C5")
    assert f"simultaneous for the {words[len(claims.GEOMETRIES)]}" in text_of("C6")
    assert text_of("C4").count("for at least three of them") == 2
    assert number("C4", r"interval is below ([\d.]+)\.") == COUNTS
    assert number("C5", r"\(a\) is above (-\d+),") == HALVED
    assert "-1 (at least halved)" in text_of("C5")
    assert "(b) below 0." in text_of("C5")
    assert "one of them is above 0." in text_of("C6")
