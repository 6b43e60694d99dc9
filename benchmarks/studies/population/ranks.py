"""Rank correlations of a measure and an outcome within axes, with intervals over base configurations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.stats import norm

from benchmarks.report.intervals import Interval
from benchmarks.studies.population.design import AXES, Member
from benchmarks.studies.population.features import Point
from benchmarks.studies.population.prediction import around

__all__ = ["Correlation", "correlate", "holm", "pairs"]

K = TypeVar("K", bound=Hashable)

SAMPLES = 2_000
#: An axis with fewer pairs is left out: a few that agree by chance have no spread.
FEWEST = 10


@dataclass(frozen=True)
class Correlation:
    """Kendall's coefficient within axes.

    Attributes
    ----------
    average : Interval
        Average over axes.
    by_axis : dict of str to Interval
        Of the pairs of each axis.
    pairs : dict of str to int
        How many these are.
    p : float
        Two-sided, that the average is 0, of a normal distribution with the bootstrap's deviation.
    """

    average: Interval
    by_axis: dict[str, Interval]
    pairs: dict[str, int]
    p: float

    @property
    def worst(self) -> str:
        """The axis of the lowest coefficient."""
        return min(self.by_axis, key=lambda axis: self.by_axis[axis].mean)


def correlate(
    points: Sequence[Point],
    measure: Callable[[Point], float | None],
    outcome: Callable[[Point], float],
    seed: int = 0,
    fewest: int = FEWEST,
) -> Correlation | None:
    """Compare each base configuration with its variants: does the one with more of a measure have more of an outcome?

    Parameters
    ----------
    points : sequence of Point
        Networks at comparable times; those that differ from a base configuration in the seed only are left out.
    measure, outcome : callable
        Return a number of a network; a measure that is None leaves it out.
    seed : int
        Of the bootstrap.
    fewest : int
        Pairs that an axis must have to count.

    Returns
    -------
    Correlation or None
        None where no axis has enough.
    """
    bases = {p.member.base: p for p in points if p.member.axis == "base"}
    numbers = sorted({p.member.base for p in points})
    axes = list(AXES)
    agreement = np.full((len(numbers), len(axes)), np.nan)
    for point in points:
        base = bases.get(point.member.base)
        if point.member.axis not in AXES or base is None:
            continue
        here, there = measure(point), measure(base)
        if here is not None and there is not None:
            sign = np.sign(here - there) * np.sign(outcome(point) - outcome(base))
            agreement[numbers.index(point.member.base), axes.index(point.member.axis)] = sign
    agreement[:, (~np.isnan(agreement)).sum(0) < fewest] = np.nan
    known = ~np.isnan(agreement)
    if not known.any():
        return None
    random = np.random.default_rng(seed)
    weights = random.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=SAMPLES)
    drawn = _means(agreement, known, weights)
    means = _means(agreement, known, np.ones((1, len(numbers))))
    counts = dict(zip(axes, known.sum(0).tolist(), strict=True))
    average = np.nanmean(drawn, 1)
    mean = around(float(np.nanmean(means)), average)
    return Correlation(
        mean,
        {axis: around(float(means[0, i]), drawn[:, i]) for i, axis in enumerate(axes) if counts[axis]},
        {axis: count for axis, count in counts.items() if count},
        _p_value(mean),
    )


def _means(agreement: np.ndarray, known: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average over base configurations, for each row of weights and each axis; nan where an axis has no pair."""
    counts = weights @ known
    return weights @ np.where(known, agreement, 0.0) / np.where(counts > 0, counts, np.nan)


def _p_value(mean: Interval) -> float:
    if mean.half_width == 0:  # all pairs agree, or all are ties
        return 1.0 if mean.mean == 0 else 0.0
    return float(2 * norm.sf(1.96 * abs(mean.mean) / mean.half_width))


def pairs(members: Iterable[Member]) -> Counter[str]:
    """Count the pairs of a base configuration and its variant by axis."""
    known = list(members)
    bases = {member.base for member in known if member.axis == "base"}
    return Counter(member.axis for member in known if member.axis in AXES and member.base in bases)


def holm(p: Mapping[K, float]) -> dict[K, float]:
    """Correct p-values for their number by Holm's step-down procedure."""
    corrected: dict[K, float] = {}
    largest = 0.0
    for i, name in enumerate(sorted(p, key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - i) * p[name]))
        corrected[name] = largest
    return corrected
