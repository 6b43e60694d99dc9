"""The one-sided test against a margin, and the number of seeds that it needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from benchmarks.studies.cheap.noninferiority import (
    POWER,
    compare_to,
    detectable,
    pooled,
    pooled_deviation,
    power,
    seeds_needed,
    seeds_to_decide,
)


def shifted(mean: float, deviation: float, seeds: int = 10) -> list[float]:
    """Make differences with exactly this mean and this standard deviation."""
    values = np.random.default_rng(0).normal(size=seeds)
    return list(mean + deviation * (values - values.mean()) / values.std(ddof=1))


@pytest.mark.parametrize(
    ("mean", "outcome"),
    [(0.1, "holds"), (-0.1, "holds"), (-0.25, "undecided"), (-0.4, "undecided"), (-0.5, "does not hold")],
)
def test_that_the_bounds_decide(mean: float, outcome: str) -> None:
    # the 95 % quantile of Student's t with 9 degrees of freedom is 1.833: bounds at the mean and 0.116
    test = compare_to(shifted(mean, 0.2), margin=0.3)
    assert test.lower == pytest.approx(mean - 1.833 * 0.2 / math.sqrt(10), abs=1e-4)
    assert test.upper == pytest.approx(mean + 1.833 * 0.2 / math.sqrt(10), abs=1e-4)
    assert test.outcome == outcome
    assert (test.p < 0.05) == (outcome == "holds")


def test_that_the_p_value_is_scipy_s() -> None:
    values = shifted(-0.1, 0.4)
    expected = scipy.stats.ttest_1samp(np.array(values) + 0.3, 0, alternative="greater").pvalue
    assert compare_to(values, 0.3).p == pytest.approx(expected, rel=1e-9)


def test_that_one_seed_decides_nothing_and_equal_seeds_everything() -> None:
    assert compare_to([1.0], 0.3).outcome == "undecided"
    assert math.isnan(compare_to([1.0], 0.3).p)
    assert (compare_to([0.0, 0.0], 0.3).outcome, compare_to([0.0, 0.0], 0.3).p) == ("holds", 0.0)
    assert (compare_to([-1.0, -1.0], 0.3).outcome, compare_to([-1.0, -1.0], 0.3).p) == ("does not hold", 1.0)


def test_that_cases_count_alike_seed_by_seed() -> None:
    assert pooled([[1.0, 2.0], [3.0, 6.0]]) == [2.0, 4.0]
    with pytest.raises(ValueError, match="shorter"):
        pooled([[1.0, 2.0], [3.0]])


def test_that_the_deviation_of_the_mean_is_pooled_over_cases() -> None:
    # variances 2 and 8, so that the mean of the two cases has (2 + 8) / 4
    assert pooled_deviation([[0.0, 2.0], [1.0, 5.0]]) == pytest.approx(math.sqrt(10) / 2)
    draws = np.random.default_rng(1).normal(scale=[[0.5], [1.0], [2.0]], size=(3, 20_000))
    # the deviation of 20,000 numbers is known to half a per cent
    assert pooled_deviation(draws.tolist()) == pytest.approx(draws.mean(0).std(), rel=0.03)


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 156), (0.5, 27), (0.8, 12)])
def test_that_the_seeds_are_those_of_the_tables(effect: float, seeds: int) -> None:
    # G*Power's one-tailed t test of matched pairs at 5 % and a power of 0.8, for small, medium and large effects
    assert seeds_needed(deviation=0.3 / effect, margin=0.3) == seeds


def test_that_power_is_how_often_the_test_succeeds() -> None:
    draws = np.random.default_rng(2).normal(scale=0.4, size=(2_000, 12))
    successes = np.mean(scipy.stats.ttest_1samp(draws, -0.3, axis=1, alternative="greater").pvalue < 0.05)
    # 2000 draws at a power of 0.79 have a standard error of 0.009
    assert power(12, 0.4, 0.3) == pytest.approx(successes, abs=0.04)


@pytest.mark.parametrize("seeds", [2, 12])
def test_that_the_detectable_mean_is_shown_as_often_as_planned(seeds: int) -> None:
    mean = detectable(shifted(0.0, 0.4, seeds))
    draws = np.random.default_rng(3).normal(mean, 0.4, size=(20_000, seeds))
    shown = scipy.stats.ttest_1samp(draws, 0, axis=1, alternative="greater").pvalue < 0.025
    # 20,000 draws have a standard error of 0.003
    assert shown.mean() == pytest.approx(POWER, abs=0.012)


def test_that_without_deviation_two_seeds_are_enough() -> None:
    assert seeds_needed(0.0, 0.3) == 2


def test_that_the_seeds_to_decide_would_have_decided() -> None:
    values = shifted(-0.2, 0.4)
    needed = seeds_to_decide(values, 0.3)
    assert needed is not None
    assert compare_to(shifted(-0.2, 0.4, needed), 0.3).outcome == "holds"
    assert compare_to(shifted(-0.2, 0.4, needed - 1), 0.3).outcome == "undecided"
    assert seeds_to_decide(shifted(-0.3, 0.4), 0.3) is None
