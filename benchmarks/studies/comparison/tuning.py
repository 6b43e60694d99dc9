"""Tune with the same budget of runs for every contestant, and without test data.

Every setting of a contestant's grid is trained with a first seed; the best few are trained with further seeds, and the
best mean over all their seeds is chosen. The final runs use other seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from benchmarks.runs.results import C, R

__all__ = ["Protocol", "Tuned", "tune"]

K = TypeVar("K")


@dataclass(frozen=True)
class Protocol:
    """Seeds of a study, and number of settings that tuning keeps after the first seeds.

    Attributes
    ----------
    first : tuple of int
        Seeds that every setting is tried with.
    kept : int
        Number of each contestant's best settings that are tried with more seeds.
    second : tuple of int
        The seeds of these further runs.
    final : tuple of int
        Seeds of the runs that are reported.
    best : int
        Number of each contestant's best settings that are trained with the final seeds.
    rounds : int
        How often ranges may be widened where the best setting lies at an end.
    """

    first: tuple[int, ...] = (1000,)
    kept: int = 4
    second: tuple[int, ...] = (1001, 1002, 1003)
    final: tuple[int, ...] = tuple(range(10))
    best: int = 1
    rounds: int = 0

    def __post_init__(self) -> None:
        if self.best > self.kept:
            raise ValueError(f"best must be at most kept, {self.kept}, got {self.best}")
        seeds = [*self.first, *self.second, *self.final]
        if len(set(seeds)) < len(seeds):
            raise ValueError("all seeds must differ, those of tuning and of the final runs")

    def budget(self, settings: int) -> int:
        """Count the tuning runs of a contestant with this number of settings; 0 if there is only one."""
        if settings == 1:
            return 0
        return settings * len(self.first) + min(self.kept, settings) * len(self.second)


@dataclass(frozen=True)
class Tuned(Generic[C]):
    """Setting that tuning chose for a contestant, with the scores of all.

    Attributes
    ----------
    setting : Run
        The best setting.
    score : float
        Mean score of the best setting over the tuning seeds.
    scores : dict of Run to float
        Mean score of each setting over the seeds that it was tried with.
    kept : tuple of Run
        Settings that were kept after the first seeds, the chosen one among them.
    by_seed : dict of Run to list of float
        Scores of each setting, in the order of the seeds that it was tried with.
    """

    setting: C
    score: float
    scores: dict[C, float]
    kept: tuple[C, ...]
    by_seed: dict[C, list[float]] = field(default_factory=dict)

    def best(self, number: int) -> list[C]:
        """List so many of the kept settings, the best one first; fewer if fewer were kept."""
        return sorted(self.kept, key=self.scores.__getitem__, reverse=True)[:number]

    def at_edge(self, value: Callable[[C], float]) -> bool:
        """Tell whether a value of the chosen setting is the smallest or the largest of those tried."""
        tried = {value(setting) for setting in self.scores}
        return len(tried) > 1 and value(self.setting) in (min(tried), max(tried))


def tune(
    settings: Mapping[K, Sequence[C]],
    collect: Callable[[Sequence[C]], Sequence[R]],
    with_seed: Callable[[C, int], C],
    score: Callable[[R], float],
    protocol: Protocol,
    *,
    even: bool = True,
) -> dict[K, Tuned[C]]:
    """Choose a setting for each contestant.

    Parameters
    ----------
    settings : mapping of K to sequence of Run
        The grid of each contestant.
    collect : callable
        Trains runs that have no row yet, and returns all rows in order.
    with_seed : callable
        Makes a tuning run from a setting and a seed.
    score : callable
        Returns the score of a row; larger is better.
    protocol : Protocol
        Seeds.
    even : bool
        Whether all grids must be of the same size, as they are before any range is widened.

    Returns
    -------
    dict of K to Tuned
        The choices; among settings with equal means, the one with the better score on the first seeds. If there is only
        one setting nothing is trained, and the score is nan.
    """

    def scores(chosen: Mapping[K, Sequence[C]], seeds: Sequence[int]) -> dict[K, dict[C, list[float]]]:
        runs = [with_seed(s, seed) for grid in chosen.values() for s in grid for seed in seeds]
        values = iter([score(row) for row in collect(runs)])
        return {k: {s: [next(values) for _ in seeds] for s in grid} for k, grid in chosen.items()}

    if even and len({len(grid) for grid in settings.values()}) > 1:
        raise ValueError("contestants have grids of different sizes, so they would not be tuned alike")
    if all(len(grid) == 1 for grid in settings.values()):
        return {k: Tuned(grid[0], math.nan, {grid[0]: math.nan}, (grid[0],)) for k, grid in settings.items()}
    first = scores(settings, protocol.first)
    best = {
        k: sorted(tried, key=lambda s, tried=tried: -statistics.fmean(tried[s]))[: protocol.kept]  # type: ignore[misc]
        for k, tried in first.items()
    }
    second = scores(best, protocol.second)
    chosen = {}
    for k, tried in first.items():
        by_seed = {s: values + second[k].get(s, []) for s, values in tried.items()}
        means = {s: statistics.fmean(values) for s, values in by_seed.items()}
        setting = max(best[k], key=means.__getitem__)
        chosen[k] = Tuned(setting, means[setting], means, tuple(best[k]), by_seed)
    return chosen
