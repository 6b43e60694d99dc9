"""Test whether something is no worse than something else by more than a margin, and plan how many seeds that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean, variance

import numpy as np
import scipy.optimize
import scipy.stats

from benchmarks.report.intervals import Interval, t_interval

__all__ = [
    "ALPHA",
    "POWER",
    "NonInferiority",
    "compare_to",
    "detectable",
    "pooled",
    "pooled_deviation",
    "power",
    "seeds_needed",
    "seeds_to_decide",
]

#: Level of the one-sided test, and probability that it succeeds where there is no difference.
ALPHA, POWER = 0.05, 0.8


@dataclass(frozen=True)
class NonInferiority:
    """One-sided test of paired differences against a margin.

    Attributes
    ----------
    interval : Interval
        Two-sided 95 % interval of the mean difference.
    lower, upper : float
        One-sided 95 % confidence bounds of the mean difference.
    p : float
        Probability of such differences, or better ones, if the mean were minus the margin.
    margin : float
        How much worse is still good enough.
    """

    interval: Interval
    lower: float
    upper: float
    p: float
    margin: float

    @property
    def outcome(self) -> str:
        """Say "holds" if no worse than the margin, "does not hold" if surely worse, and "undecided" otherwise."""
        return "holds" if self.lower > -self.margin else "does not hold" if self.upper < -self.margin else "undecided"


def compare_to(differences: Sequence[float], margin: float) -> NonInferiority:
    """Test paired differences, new minus old, by Student's one-sided test against minus the margin.

    Parameters
    ----------
    differences : sequence of float
        One per seed; of a single one the bounds are nan and nothing is decided.
    margin : float
        Positive.

    Returns
    -------
    NonInferiority
        Bounds and p-value.

    Examples
    --------
    >>> test = compare_to([0.1, -0.1, 0.0, 0.1, -0.1], margin=0.3)
    >>> test.outcome, round(test.lower, 3)
    ('holds', -0.095)
    """
    interval = t_interval(differences)
    one_sided = t_interval(differences, 1 - 2 * ALPHA)
    if len(differences) < 2:
        p = math.nan
    elif np.ptp(differences) == 0:  # SciPy says nan of equal differences
        p = 0.0 if differences[0] > -margin else 1.0
    else:
        p = float(scipy.stats.ttest_1samp(differences, -margin, alternative="greater").pvalue)
    return NonInferiority(interval, one_sided.low, one_sided.high, p, margin)


def pooled(by_case: Sequence[Sequence[float]]) -> list[float]:
    """Average differences over the cases, seed by seed; every case has the same seeds in the same order."""
    return [fmean(of_seed) for of_seed in zip(*by_case, strict=True)]


def pooled_deviation(by_case: Sequence[Sequence[float]]) -> float:
    r"""Estimate the standard deviation, over seeds, of the mean difference over the cases.

    Cases are different data, so that their differences are independent:
    :math:`\sqrt{\sum_c s_c^2} / C` with the deviation :math:`s_c` of each of :math:`C` cases. It has
    :math:`C (n - 1)` degrees of freedom, and the deviation of the means themselves only :math:`n - 1`.

    Parameters
    ----------
    by_case : sequence of sequences of float
        Paired differences of each case, two or more seeds each.
    """
    return math.sqrt(sum(variance(differences) for differences in by_case)) / len(by_case)


def power(seeds: int, deviation: float, margin: float) -> float:
    """Return the probability that the test succeeds with so many seeds if there is no true difference."""
    if deviation == 0:
        return 1.0
    critical = scipy.stats.t.ppf(1 - ALPHA, seeds - 1)
    return float(scipy.stats.nct.sf(critical, seeds - 1, math.sqrt(seeds) * margin / deviation))


def seeds_needed(deviation: float, margin: float) -> int:
    """Return the smallest number of seeds, at least 2, with which the test has its planned power.

    Examples
    --------
    >>> seeds_needed(deviation=0.6, margin=0.3)
    27
    """
    quantiles = scipy.stats.norm.ppf([1 - ALPHA, POWER])
    fewest = int((quantiles.sum() * deviation / margin) ** 2)  # that of a normal distribution, which is too few
    return next(n for n in count(max(2, fewest)) if power(n, deviation, margin) >= POWER)


def detectable(differences: Sequence[float]) -> float:
    """Return the mean for which a two-sided 95 % interval would lie above 0 with the planned power.

    Parameters
    ----------
    differences : sequence of float
        Differences whose number and deviation are assumed, two or more.

    Examples
    --------
    >>> round(detectable([0.5, -0.5, 1.0, -1.0]), 2)
    1.94
    """
    n, deviation = len(differences), math.sqrt(variance(differences))
    critical = scipy.stats.t.ppf(0.975, n - 1)
    # the probability rises with the mean, from that of exceeding by chance
    shift = scipy.optimize.brentq(lambda d: scipy.stats.nct.sf(critical, n - 1, d) - POWER, 0, 100)
    return float(shift) * deviation / math.sqrt(n)


def seeds_to_decide(differences: Sequence[float], margin: float, most: int = 1_000) -> int | None:
    """Return with how many seeds the test would decide if mean and deviation stayed; None if not with ``most``."""
    distance, deviation = abs(fmean(differences) + margin), math.sqrt(variance(differences))
    enough = (
        n for n in range(2, most + 1) if scipy.stats.t.ppf(1 - ALPHA, n - 1) * deviation / math.sqrt(n) < distance
    )
    return next(enough, None)
