"""That C4 follows from the numbers as its rule says.

Rank correlations are those of orders of five networks, whose coefficients are multiples of 0.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from benchmarks.studies.images.claims import CURVATURES, c4, gap
from tests.benchmarks.entries import made_case
from tests.benchmarks.verdicts import COUNTS, FIVE, SLACK, assert_is_test_of, entries_of_c4


def cases_of_c4(first: Sequence[int], second: Sequence[int], third: Sequence[int], fourth: Sequence[int]) -> list:
    """Make two cases; the mean of their correlations is given for each measure, in tenths."""
    measures = dict(zip(CURVATURES, (first, second, third, fourth), strict=True))
    swing = [2, -2, 1, -1, 0, 3, -3, 2, -1, 0]
    return [
        entries_of_c4(
            {name: [t + sign * s for t, s in zip(of, swing, strict=True)] for name, of in measures.items()},
            made_case((*FIVE, "peer_sam"), name=f"case{sign}"),
        )
        for sign in (1, -1)
    ]


# correlations of ten seeds in tenths, and their interval when corrected for four measures
STRONG = [3, 4, 3, 4, 3, 3, 4, 3, 3, 1]
NEARLY_STRONG = [3, 3, 3, 4, 3, 3, 3, 3, 3, 1]
WEAK = [1, 2, 1, 2, 1, 2, 1, 2, 1, 2]
WIDE = [7, -3, 7, -3, 7, -3, 7, -3, 7, 7]
NEGATIVE = [-5, -6, -5, -6, -5, -6, -5, -6, -5, -6]
#: Values whose 95 % interval is above 0, but not when corrected for four measures; likewise below 0.3.
JUST_ABOVE_ALONE = [7, -1, 7, -1, 6, 0, 6, -1, 7, 2]
JUST_BELOW_ALONE = [4, -3, 4, -4, 4, -3, 3, -4, 4, -4]


def interval_of(tenths: Sequence[int], level: float) -> tuple[float, float]:
    actual = scipy.stats.ttest_1samp(np.array(tenths) / 10, 0).confidence_interval(level)
    return actual.low, actual.high


def test_that_the_correlations_are_what_they_are_called() -> None:
    for tenths, holds, fails in (
        (STRONG, True, False),
        (NEARLY_STRONG, False, False),
        (WEAK, False, True),
        (WIDE, False, False),
        (NEGATIVE, False, True),
        (JUST_ABOVE_ALONE, False, False),
        (JUST_BELOW_ALONE, False, False),
    ):
        low, high = interval_of(tenths, 0.9875)
        assert (np.mean(tenths) / 10 >= COUNTS and low > 0, high < COUNTS) == (holds, fails)
    assert np.mean(NEARLY_STRONG) / 10 == pytest.approx(COUNTS - SLACK)
    assert np.mean(STRONG) / 10 == pytest.approx(COUNTS + SLACK)
    assert interval_of(NEARLY_STRONG, 0.9875)[0] > 0
    assert np.mean(JUST_ABOVE_ALONE) / 10 > COUNTS
    assert interval_of(JUST_ABOVE_ALONE, 0.95)[0] > 0
    assert interval_of(JUST_BELOW_ALONE, 0.95)[1] < COUNTS


@pytest.mark.parametrize(
    ("measures", "outcome"),
    [
        ((STRONG, STRONG, STRONG, STRONG), "holds"),
        ((STRONG, STRONG, STRONG, NEGATIVE), "holds"),
        ((NEGATIVE, STRONG, STRONG, STRONG), "holds"),
        ((STRONG, STRONG, NEARLY_STRONG, NEARLY_STRONG), "undecided"),
        ((STRONG, STRONG, WEAK, WEAK), "undecided"),
        ((STRONG, STRONG, WIDE, WIDE), "undecided"),
        ((STRONG, STRONG, JUST_ABOVE_ALONE, JUST_ABOVE_ALONE), "undecided"),
        ((WEAK, WEAK, WEAK, STRONG), "does not hold"),
        ((STRONG, NEGATIVE, WEAK, NEGATIVE), "does not hold"),
        ((WEAK, WEAK, WIDE, WIDE), "undecided"),
        ((WEAK, WEAK, JUST_BELOW_ALONE, JUST_BELOW_ALONE), "undecided"),
        ((WEAK, WEAK, NEARLY_STRONG, NEARLY_STRONG), "undecided"),
    ],
)
def test_that_c4_follows_its_rule_at_its_edges(measures, outcome) -> None:
    verdict = c4(cases_of_c4(*measures))
    assert (verdict.claim, verdict.outcome) == ("C4", outcome)


def test_that_c4_rests_on_tests_of_the_mean_correlation_over_cases() -> None:
    measures = (STRONG, WEAK, WIDE, NEGATIVE)
    evidence = c4(cases_of_c4(*measures)).evidence
    labels = ["gradient norm", "Hessian trace", "top eigenvalue", "m-sharpness"]
    for (what, comparison), label, tenths in zip(evidence, labels, measures, strict=True):
        assert label in what
        assert_is_test_of(comparison, np.array(tenths) / 10, 4)


def test_that_c4_takes_the_gap_and_not_the_accuracy() -> None:
    cases = cases_of_c4(STRONG, STRONG, STRONG, STRONG)
    # turn test accuracies from opposite to the gaps to equal to them, with the same gaps
    for case in cases:
        for entry in case:
            for i, row in enumerate(entry.rows):
                entry.rows[i] = replace(row, scores={"accuracy": gap(row), "train_accuracy": 2 * gap(row)})
    assert c4(cases).outcome == "holds"
