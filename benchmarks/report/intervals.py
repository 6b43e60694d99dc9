"""Compute means with intervals, and paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

__all__ = [
    "AsymmetricInterval",
    "Comparison",
    "Interval",
    "compare",
    "geometric",
    "geometric_mean",
    "judged",
    "median_interval",
    "p_value",
    "t_interval",
]


@dataclass(frozen=True)
class Interval:
    """Mean, with how far its confidence interval reaches to either side."""

    mean: float
    half_width: float

    @property
    def estimate(self) -> float:
        """The mean."""
        return self.mean

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width

    def __format__(self, spec: str) -> str:
        if math.isnan(self.mean):
            return "not defined"
        if math.isnan(self.half_width):
            return format(self.mean, spec)
        if self.half_width < 100:
            return f"{self.mean:{spec}} ± {self.half_width:{spec}}"
        # the decimals of what may be a hundred too large or too small say nothing, and make tables hard to read; digits
        # after the third of wide intervals, of ill-conditioned fits, differ between versions of LAPACK
        half_width = float(f"{self.half_width:.3g}")
        return f"{self.mean:{spec if abs(self.mean) < 100 else '.0f'}} ± {half_width:.0f}"


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Average independent measurements, with Student's interval.

    Parameters
    ----------
    values : sequence of float
        At least one; the interval of a single value is unknown (nan).
    confidence : float
        Probability that the interval covers the true mean, if the values are normal.

    Returns
    -------
    Interval
        Mean and half width.
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, math.nan)
    quantile = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    return Interval(mean, float(quantile * scipy.stats.sem(values)))


@dataclass(frozen=True)
class AsymmetricInterval:
    """Estimate, with the ends of its confidence interval, which are nan if they are not known."""

    estimate: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        if math.isnan(self.low):
            return format(self.estimate, spec)
        return f"{self.estimate:{spec}} ({self.low:{spec}}–{self.high:{spec}})"


def median_interval(values: Sequence[float], confidence: float = 0.95) -> AsymmetricInterval:
    """Take the median of independent measurements, with the interval between two of them.

    Whatever the distribution is, as many of the measurements lie below its median as heads fall in tosses of a coin,
    which says between which of them it lies (:func:`scipy.stats.quantile_test`).

    Parameters
    ----------
    values : sequence of float
        At least one. Fewer than six do not reach a confidence of 0.95; the ends are then nan.
    confidence : float
        Least probability that the interval covers the true median.

    Returns
    -------
    AsymmetricInterval
        Median and ends.

    Examples
    --------
    >>> f"{median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]):.1f}"
    '3.5 (1.0–6.0)'
    """
    ends = scipy.stats.quantile_test(values, p=0.5).confidence_interval(confidence)
    return AsymmetricInterval(float(np.median(values)), float(ends.low), float(ends.high))


@dataclass(frozen=True)
class Comparison:
    """Test of whether a mean differs from 0, as one of several such tests.

    Attributes
    ----------
    interval : Interval
        Of 95 %, not corrected.
    simultaneous : Interval
        Such that all of the comparisons' intervals cover with 95 % (Bonferroni).
    p : float
        Two-sided, times the number of comparisons, at most 1; nan for a single value.
    """

    interval: Interval
    simultaneous: Interval
    p: float


def compare(differences: Sequence[float], comparisons: int = 1) -> Comparison:
    """Apply Student's two-sided paired test (:func:`scipy.stats.ttest_1samp` of differences) after Bonferroni.

    Parameters
    ----------
    differences : sequence of float
        One per seed.
    comparisons : int
        Number of comparisons that are made, this one included.

    Returns
    -------
    Comparison
        Intervals and p-value.
    """
    interval = t_interval(differences)
    simultaneous = t_interval(differences, 1 - 0.05 / comparisons)
    if len(differences) < 2 or math.isnan(interval.mean):
        return Comparison(interval, simultaneous, math.nan)
    if np.ptp(differences) == 0:  # SciPy says nan of equal pairs
        return Comparison(interval, simultaneous, 1.0 if differences[0] == 0 else 0.0)
    p = float(scipy.stats.ttest_1samp(differences, 0).pvalue)
    return Comparison(interval, simultaneous, min(1.0, comparisons * p))


def judged(interval: Interval | AsymmetricInterval) -> str:
    """Say whether an interval lies above 0, below, or neither: of a single value, whose interval is nan, neither."""
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else "undecided"


def p_value(p: float) -> str:
    """Print a p-value as papers do."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def geometric(values: Sequence[float]) -> str:
    """Print the geometric mean of what is positive and known, with how many these are, if not all."""
    known = sum(value > 0 for value in values)
    return f"{geometric_mean(values):.3g}" + ("" if known in (0, len(values)) else f" ({known} of {len(values)})")


def geometric_mean(values: Sequence[float]) -> float:
    """Take the geometric mean of what is positive and known."""
    known = [value for value in values if value > 0]
    return float(np.exp(np.mean(np.log(known)))) if known else math.nan
