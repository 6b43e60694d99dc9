"""Means with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import scipy.stats


@dataclass(frozen=True)
class Interval:
    """A mean, and how far its confidence interval reaches to either side."""

    mean: float
    half_width: float

    def __format__(self, spec: str) -> str:
        if math.isnan(self.half_width):
            return format(self.mean, spec)
        return f"{self.mean:{spec}} ± {self.half_width:{spec}}"


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of independent measurements with Student's interval.

    Parameters
    ----------
    values : sequence of float
        At least one; of a single one the interval is unknown (nan).
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
