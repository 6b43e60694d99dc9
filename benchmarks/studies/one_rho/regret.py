"""Regret of one radius: points below the best of all methods, without the luck of whoever is best of many."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from benchmarks.report.intervals import Interval

__all__ = [
    "CLOSE",
    "Cell",
    "Regrets",
    "Statistic",
    "Table",
    "choose",
    "likely",
    "maximum",
    "mean",
    "noise",
    "percentile",
    "resample",
]

#: Method and rho.
Cell = tuple[str, float]
#: Accuracies in points at one level, one per seed and the same seeds for all cells.
Table = Mapping[Cell, Sequence[float]]
#: Takes regrets ``(..., methods, levels)``, and returns numbers ``(...)``.
Statistic = Callable[[NDArray], NDArray]

#: Contenders are cells at most so many points below the best of their level.
CLOSE = 5.0
DRAWS = 2000


def noise(accuracies: NDArray) -> float:
    """Estimate the deviation of accuracies ``(cells, seeds)`` that neither cell nor seed explains.

    A seed that makes all cells of a level better does not change which one is the best. Zero for a single cell or seed,
    of which there is nothing to estimate.
    """
    cells, seeds = accuracies.shape
    if min(cells, seeds) < 2:
        return 0.0
    rest = accuracies - accuracies.mean(1, keepdims=True) - accuracies.mean(0) + accuracies.mean()
    return float(np.sqrt((rest**2).sum() / ((cells - 1) * (seeds - 1))))


def likely(accuracies: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Say what the true means of a level's cells may be (empirical Bayes), and how noisy measured means are.

    Parameters
    ----------
    accuracies : ndarray
        Of shape ``(cells, seeds)``.

    Returns
    -------
    centres, deviations : ndarray
        Of the normal distribution of each true mean: that of contenders is shrunk towards the mean of all contenders,
        as far as their scatter is noise; others are centred at their measured means.
    errors : ndarray
        Standard error of each measured mean: the same for contenders; for others, of which some collapse with one seed
        and not with another, that of their own accuracies if it is larger, up to a quarter of their distance from the
        best: drawn with more, they would be the best now and then.
    """
    seeds = accuracies.shape[1]
    means = accuracies.mean(1)
    close = means >= np.max(means) - CLOSE
    error = noise(accuracies[close]) / math.sqrt(seeds)
    own = (accuracies - accuracies[close].mean(0)).std(1, ddof=1) / math.sqrt(seeds)
    errors = np.where(close, error, np.minimum(own, (np.max(means) - means) / 4).clip(error))
    scatter = float(means[close].var(ddof=1)) if close.sum() > 1 else 0.0
    share = max(0.0, 1 - error**2 / scatter) if scatter > 0 else 0.0
    overall = means[close].mean()
    centres = np.where(close, overall + share * (means - overall), means)
    return centres, np.where(close, math.sqrt(share) * error, errors), errors


@dataclass(frozen=True)
class Regrets:
    """Regrets of methods at levels, and how far measured ones are off.

    Attributes
    ----------
    methods : tuple of str
        Their names.
    measured : ndarray
        Of shape ``(methods, levels)``: the best mean accuracy of a level minus the method's.
    true, again : ndarray
        Of shape ``(draws, methods, levels)``: regrets that may be the true ones, and as they would be measured then.
    """

    methods: tuple[str, ...]
    measured: NDArray
    true: NDArray
    again: NDArray

    def estimate(self, statistic: Statistic, comparisons: int = 1) -> Interval:
        """Estimate a statistic of the regrets: as measured, minus what measuring adds on average.

        Parameters
        ----------
        statistic : callable
            See :data:`Statistic`.
        comparisons : int
            Number of normal intervals that cover together with 95 % (Bonferroni).
        """
        errors = statistic(self.again) - statistic(self.true)
        quantile = scipy.stats.norm.ppf(1 - 0.025 / comparisons)
        corrected = round(float(statistic(self.measured) - errors.mean()), 9) + 0.0  # not -0.0 after rounding errors
        return Interval(corrected, float(quantile * errors.std()))

    def row(self, method: str) -> int:
        """Return the row of a method."""
        return self.methods.index(method)

    def at(self, method: str, level: int) -> Interval:
        """Estimate the regret of a method at one level."""
        row = self.row(method)
        return self.estimate(lambda regrets: regrets[..., row, level])


def resample(tables: Sequence[Table], rhos: Mapping[str, float], seed: int = 0, draws: int = DRAWS) -> Regrets:
    """Measure regrets, and draw true and measured ones.

    The best of many noisy means is too high, and so is every regret; the largest of many noisy regrets is still
    higher. How much is found by drawing true means, and measuring these with noise of the size found at the level.

    Parameters
    ----------
    tables : sequence of Table
        Levels, each with every method at its rho, and with at least two seeds.
    rhos : mapping of str to float
        The rho of each method.
    seed, draws : int
        Of the random numbers, and how many.

    Examples
    --------
    >>> tables = [{("sam", 0.1): [80.0, 82.0], ("sam", 0.2): [79.0, 81.5], ("asam", 1.0): [70.0, 72.0]}]
    >>> resample(tables, {"sam": 0.2, "asam": 1.0}).measured.tolist()
    [[0.75], [10.0]]
    """
    random = np.random.default_rng(seed)
    levels = []
    for table in tables:
        accuracies = np.array(list(table.values()), dtype=float)
        rows = [list(table).index(cell) for cell in rhos.items()]
        centres, deviations, errors = likely(accuracies)
        true = centres + deviations * random.standard_normal((draws, len(centres)))
        again = true + errors * random.standard_normal(true.shape)
        levels.append([means.max(-1)[..., None] - means[..., rows] for means in (accuracies.mean(1), true, again)])
    measured, true, again = (np.stack(of_levels, -1) for of_levels in zip(*levels, strict=True))
    return Regrets(tuple(rhos), measured, true, again)


def mean(row: int) -> Statistic:
    """Average a method's regrets over levels."""
    return lambda regrets: regrets[..., row, :].mean(-1)


def percentile(row: int) -> Statistic:
    """Take the 90th percentile of a method's regrets over levels."""
    return lambda regrets: np.quantile(regrets[..., row, :], 0.9, axis=-1)


def maximum(row: int) -> Statistic:
    """Take the largest of a method's regrets."""
    return lambda regrets: regrets[..., row, :].max(-1)


def choose(tables: Sequence[Table], method: str) -> float:
    """Choose the rho of a method with the least mean regret over levels, the smallest of equal ones.

    The best of a level is the same whatever rho is chosen, so that this is the rho of the best mean accuracy.

    Examples
    --------
    >>> choose([{("sam", 0.1): [80.0], ("sam", 0.2): [81.0]}, {("sam", 0.1): [70.0], ("sam", 0.2): [40.0]}], "sam")
    0.1
    """
    shared = set.intersection(*({rho for name, rho in table if name == method} for table in tables))
    return max(sorted(shared), key=lambda rho: float(np.mean([np.mean(table[method, rho]) for table in tables])))
