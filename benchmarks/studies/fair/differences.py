"""Compare methods over their best settings, seeds and cases, and say how sure the choice of settings is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from benchmarks.report.intervals import Interval, t_interval
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.comparison.tables import Cases
from benchmarks.studies.fair.rules import judge

__all__ = ["Difference", "at_best", "best_on_validation", "choice_error", "difference", "lead", "over_settings"]


@dataclass(frozen=True)
class Difference:
    """By how many points of test accuracy one method beats another.

    Attributes
    ----------
    by_case : dict of str to list of float
        One number per seed, by the label of the case.
    comparisons : int
        Number of comparisons that intervals are corrected for.
    missing : int
        Number of cases of which there are no results; while there are any, nothing is decided.
    """

    by_case: dict[str, list[float]]
    comparisons: int = 1
    missing: int = 0

    @property
    def of_seeds(self) -> list[float]:
        """Mean over the cases of each seed."""
        return [fmean(of_seed) for of_seed in zip(*self.by_case.values(), strict=True)]

    @property
    def means(self) -> list[float]:
        """Mean of each case."""
        return [fmean(values) for values in self.by_case.values()]

    @property
    def pooled(self) -> Interval:
        """Over the seeds, corrected."""
        return t_interval(self.of_seeds, 1 - 0.05 / self.comparisons)

    @property
    def over_cases(self) -> Interval:
        """Over the means of the cases, corrected."""
        return t_interval(self.means, 1 - 0.05 / self.comparisons)

    @property
    def outcome(self) -> str:
        """Verdict by the rule."""
        return judge(self.pooled, self.means, self.missing)


def _of_name(case: Sequence[Entry], name: str) -> list[Entry]:
    """List the entries of a method, the best setting first."""
    return [entry for entry in case if entry.name == name]


def over_settings(case: Sequence[Entry], name: str) -> list[float]:
    """Average the scores of a method over its settings, seed by seed."""
    scores = [[entry.case.score.of(row) for row in entry.rows] for entry in _of_name(case, name)]
    return [fmean(of_seed) for of_seed in zip(*scores, strict=True)]


def at_best(case: Sequence[Entry], name: str) -> list[float]:
    """List the scores of a method at its best setting, seed by seed."""
    best = _of_name(case, name)[0]
    return [best.case.score.of(row) for row in best.rows]


def difference(cases: Cases, one: str, other: str, comparisons: int = 1, *, best: bool = False) -> Difference:
    """Subtract the scores of another method, seed by seed.

    Parameters
    ----------
    cases : sequence of sequences of Entry
        Entries of each case.
    one, other : str
        Names of contestants.
    comparisons : int
        Number of comparisons that intervals are corrected for.
    best : bool
        Compare the best settings, and not the means over all.
    """
    of = at_best if best else over_settings
    return Difference(
        {case[0].case.label: [a - b for a, b in zip(of(case, one), of(case, other), strict=True)] for case in cases},
        comparisons,
    )


def best_on_validation(cases: Cases, names: Sequence[str]) -> str:
    """Return the method of the best validation accuracy, mean over its settings that go on and over the cases."""

    def score(name: str) -> float:
        kept = [_of_name(case, name) for case in cases]
        return fmean(fmean(of_case[0].tuned.scores[s] for s in of_case[0].tuned.best(len(of_case))) for of_case in kept)

    return max(names, key=score)


def choice_error(entry: Entry) -> float:
    """Estimate the standard error of the difference between two kept settings, in points of validation accuracy.

    From the scores of the kept settings over the seeds of tuning, less the means of settings and of seeds; nan if
    they are too few, or if one diverged.
    """
    scores = entry.case.score.unit * np.array([entry.tuned.by_seed[setting] for setting in entry.tuned.kept])
    settings, seeds = scores.shape
    if settings < 2 or seeds < 2 or not np.isfinite(scores).all():
        return math.nan
    rest = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean()
    variance = float((rest**2).sum()) / ((settings - 1) * (seeds - 1))
    return math.sqrt(2 * variance / seeds)


def lead(entry: Entry) -> float:
    """Return by how many points of validation accuracy the best setting leads the next; nan if there is none."""
    best = entry.tuned.best(2)
    if len(best) < 2:
        return math.nan
    return entry.case.score.unit * (entry.tuned.scores[best[0]] - entry.tuned.scores[best[1]])
