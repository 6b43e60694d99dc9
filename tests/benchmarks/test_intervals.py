"""That intervals and paired comparisons equal scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from benchmarks.report.intervals import Interval, compare, median_interval
from benchmarks.studies.images import tables
from tests.benchmarks.comparisons import generator


@pytest.mark.parametrize("comparisons", [1, 2, 18])
def test_that_comparisons_are_scipys_paired_tests_after_bonferroni(comparisons) -> None:
    one, other = generator(1).normal(0.3, 1, 10), generator(2).normal(size=10)
    actual = compare(list(one - other), comparisons)
    test = scipy.stats.ttest_rel(one, other)
    assert actual.p == pytest.approx(min(1, comparisons * test.pvalue))
    for interval, level in ((actual.interval, 0.95), (actual.simultaneous, 1 - 0.05 / comparisons)):
        reference = test.confidence_interval(level)
        assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high))
        assert interval.mean == pytest.approx(np.mean(one - other))


@pytest.mark.parametrize("comparisons", [1, 3, 18])
@pytest.mark.parametrize("seed", range(5))
def test_that_the_simultaneous_interval_and_the_p_value_agree(seed, comparisons) -> None:
    actual = compare(list(generator(seed).normal(0.9, 1, 10)), comparisons)
    assert (actual.simultaneous.low > 0 or actual.simultaneous.high < 0) == (actual.p < 0.05)
    assert actual.simultaneous.half_width >= actual.interval.half_width


def test_that_equal_pairs_do_not_differ_and_constant_differences_do() -> None:
    assert compare([0.0, 0.0, 0.0]).p == 1
    assert compare([0.5, 0.5, 0.5]).p == 0
    assert compare([0.5, 0.5, 0.5]).interval.half_width == 0


def test_that_one_pair_tells_nothing() -> None:
    actual = compare([3.0], 2)
    assert actual.interval.mean == actual.simultaneous.mean == 3
    assert all(map(math.isnan, (actual.p, actual.interval.half_width, actual.simultaneous.half_width)))
    assert tables.p_value(actual.p) == ""


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "< 0.001"), (0.0009, "< 0.001"), (0.0011, "0.001"), (0.0499, "0.050"), (1.0, "1.000")]
)
def test_that_p_values_are_printed_as_papers_do(p, text) -> None:
    assert tables.p_value(p) == text


def test_that_differences_that_are_not_known_have_no_p_value() -> None:
    assert math.isnan(compare([1.0, math.nan, 2.0], 4).p)


@pytest.mark.parametrize("n", [6, 7, 10, 50, 51, 300])
def test_that_the_interval_of_a_median_is_the_narrowest_that_the_binomial_allows(n) -> None:
    actual = median_interval(list(generator(n).permutation(n) + 1.0))  # values are their own ranks
    assert actual.estimate == (n + 1) / 2
    assert actual.low + actual.high == n + 1
    # the median of a distribution lies below the k-th smallest value if fewer than k are below it
    below = scipy.stats.binom(n, 0.5).cdf
    assert 1 - 2 * below(actual.low - 1) >= 0.95 > 1 - 2 * below(actual.low)


def test_that_the_interval_of_a_median_covers_it_as_often_as_promised() -> None:
    samples = generator(0).lognormal(size=(1000, 10))  # skewed, with median 1
    intervals = [median_interval(list(sample)) for sample in samples]
    covered = np.mean([i.low <= 1 <= i.high for i in intervals])
    assert covered == pytest.approx(1 - 2 * scipy.stats.binom(10, 0.5).cdf(1), abs=0.02)  # four standard errors


@pytest.mark.parametrize(("values", "text"), [([2.0], "2.00"), ([1.0] * 5, "1.00"), ([1.0] * 6, "1.00 (1.00–1.00)")])
def test_that_few_values_have_a_median_and_no_interval(values, text) -> None:
    assert f"{median_interval(values):.2f}" == text


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.5, 99.94, "0.5 ± 99.9"),
        (0.5, 100.0, "0.5 ± 100"),
        (0.5, 155.63, "0.5 ± 156"),
        (-104.19, 1258.4, "-104 ± 1260"),
        (0.39, 52296.4, "0.4 ± 52300"),
        (100.0, 0.04, "100.0 ± 0.0"),
    ],
)
def test_that_wide_intervals_have_no_decimals(mean, half, text) -> None:
    assert f"{Interval(mean, half):.1f}" == text


def test_that_intervals_say_what_they_do_not_know() -> None:
    written = [f"{Interval(mean, half):.1f}" for mean, half in ((1.26, 0.5), (1.26, math.nan), (math.nan, math.nan))]
    assert written == ["1.3 ± 0.5", "1.3", "not defined"]
