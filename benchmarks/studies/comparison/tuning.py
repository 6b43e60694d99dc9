"""The tuning rule: the same budget of runs for every contestant, and no test data.

Every setting of a contestant's grid is trained with a first seed; the best few are trained with further seeds, and the
best mean over all of them is chosen. None of these seeds serves the final runs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from benchmarks.runs.results import C, R

__all__ = ["Protocol", "Tuned", "tune"]

K = TypeVar("K")


@dataclass(frozen=True)
class Protocol:
    """Seeds of a study, and how many settings get past the first one.

    Attributes
    ----------
    first : tuple of int
        Seeds of every setting.
    kept : int
        Settings of each contestant that are trained with more seeds.
    second : tuple of int
        Those seeds.
    final : tuple of int
        Seeds of the runs that are reported.
    """

    first: tuple[int, ...] = (1000,)
    kept: int = 4
    second: tuple[int, ...] = (1001, 1002, 1003)
    final: tuple[int, ...] = tuple(range(10))

    def __post_init__(self) -> None:
        seeds = [*self.first, *self.second, *self.final]
        if len(set(seeds)) < len(seeds):
            raise ValueError("all seeds must differ, those of tuning and of the final runs")

    def budget(self, settings: int) -> int:
        """Tuning runs of a contestant with so many settings; none where there is no choice."""
        if settings == 1:
            return 0
        return settings * len(self.first) + min(self.kept, settings) * len(self.second)


@dataclass(frozen=True)
class Tuned(Generic[C]):
    """What tuning chose for a contestant.

    Attributes
    ----------
    setting : Run
        The best setting.
    score : float
        Its mean score over the tuning seeds.
    scores : dict of Run to float
        Mean score of every setting over the seeds that it was trained with.
    kept : tuple of Run
        Settings that got past the first seeds, the chosen one among them.
    """

    setting: C
    score: float
    scores: dict[C, float]
    kept: tuple[C, ...]

    def at_edge(self, value: Callable[[C], float]) -> bool:
        """Tell whether a value of the chosen setting is the least or the largest of those tried."""
        tried = {value(setting) for setting in self.scores}
        return len(tried) > 1 and value(self.setting) in (min(tried), max(tried))


def tune(
    settings: Mapping[K, Sequence[C]],
    collect: Callable[[Sequence[C]], Sequence[R]],
    with_seed: Callable[[C, int], C],
    score: Callable[[R], float],
    protocol: Protocol,
) -> dict[K, Tuned[C]]:
    """Choose a setting for each contestant.

    Parameters
    ----------
    settings : mapping of K to sequence of Run
        The grid of each contestant, of the same size for all.
    collect : callable
        Trains what is not trained yet, and returns rows in order.
    with_seed : callable
        Makes a tuning run of a setting and a seed.
    score : callable
        What is to be large, from a row.
    protocol : Protocol
        Seeds.

    Returns
    -------
    dict of K to Tuned
        The choices; of equal ones that with the better score of the first seeds. Where there is one setting only
        nothing is trained, and its score is nan.
    """

    def scores(chosen: Mapping[K, Sequence[C]], seeds: Sequence[int]) -> dict[K, dict[C, list[float]]]:
        runs = [with_seed(s, seed) for grid in chosen.values() for s in grid for seed in seeds]
        found = iter([score(row) for row in collect(runs)])
        return {k: {s: [next(found) for _ in seeds] for s in grid} for k, grid in chosen.items()}

    if len({len(grid) for grid in settings.values()}) > 1:
        raise ValueError("contestants have grids of different sizes, so they would not be tuned alike")
    if all(len(grid) == 1 for grid in settings.values()):
        return {k: Tuned(grid[0], math.nan, {grid[0]: math.nan}, (grid[0],)) for k, grid in settings.items()}
    first = scores(settings, protocol.first)
    best = {
        k: sorted(of_k, key=lambda s, of_k=of_k: -statistics.fmean(of_k[s]))[: protocol.kept]  # type: ignore[misc]
        for k, of_k in first.items()
    }
    second = scores(best, protocol.second)
    chosen = {}
    for k, of_k in first.items():
        means = {s: statistics.fmean(values + second[k].get(s, [])) for s, values in of_k.items()}
        setting = max(best[k], key=means.__getitem__)
        chosen[k] = Tuned(setting, means[setting], means, tuple(best[k]))
    return chosen
