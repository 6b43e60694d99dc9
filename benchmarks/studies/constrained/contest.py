"""Tune both methods in a case, and read the final networks where early stopping stops them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from benchmarks.run import Row, Run
from benchmarks.studies.comparison.tuning import Tuned, tune
from benchmarks.studies.constrained.design import ASCENT, BASE, Case, Design

__all__ = ["Collect", "Found", "by_noise", "compete", "finals", "stopped", "validation"]

Collect = Callable[[Sequence[Run]], Sequence[Row]]
#: Accuracy of a network that diverged before it was scored, in points: that of guessing among ten classes.
_GUESS = 10.0


def validation(row: Row) -> float:
    """Return the best validation accuracy of a network that settings are chosen by, in points."""
    return 100 * max(row.curves.get("accuracy", []), default=_GUESS / 100)


def stopped(row: Row) -> float:
    """Return test accuracy at the earliest of the epochs with the best validation accuracy, in points."""
    on_validation, on_test = row.curves.get("validation_accuracy", []), row.curves.get("accuracy", [])
    if not on_validation:
        return _GUESS
    return 100 * on_test[on_validation.index(max(on_validation))]


@dataclass(frozen=True)
class Found:
    """What came of a case.

    Attributes
    ----------
    case : Case
        The case.
    tuned : dict of str to Tuned
        By method.
    settings : dict of str to list of Run
        Settings of the final runs by method, the best one first.
    rows : dict of Run to Row
        The final runs.
    same : Run
        The best setting of RSAM without its ascent.
    seeds : tuple of int
        Of the final runs.
    """

    case: Case
    tuned: dict[str, Tuned[Run]]
    settings: dict[str, list[Run]]
    rows: dict[Run, Row]
    same: Run
    seeds: tuple[int, ...]

    def scores(self, setting: Run, score: Callable[[Row], float] = stopped) -> list[float]:
        """Return the test accuracies of a setting, seed by seed."""
        return [score(self.rows[replace(setting, seed=seed)]) for seed in self.seeds]

    def of(self, method: str) -> list[float]:
        """Average the settings of a method, seed by seed."""
        by_setting = [self.scores(setting) for setting in self.settings[method]]
        return [fmean(of_seed) for of_seed in zip(*by_setting, strict=True)]

    def against_remedy(self) -> list[float]:
        """Return RSAM minus RiemannianSGD with the best remedies, seed by seed."""
        return [a - b for a, b in zip(self.of(ASCENT), self.of(BASE), strict=True)]

    def at_best(self) -> list[float]:
        """Return RSAM minus RiemannianSGD, each at its best setting alone, seed by seed."""
        ascent, base = (self.scores(self.settings[method][0]) for method in (ASCENT, BASE))
        return [a - b for a, b in zip(ascent, base, strict=True)]

    def against_base(self) -> list[float]:
        """Return RSAM minus the same setting without its ascent, seed by seed."""
        ascent, base = self.scores(self.settings[ASCENT][0]), self.scores(self.same)
        return [a - b for a, b in zip(ascent, base, strict=True)]


def compete(cases: Sequence[Case], design: Design, collect: Collect) -> list[Found]:
    """Choose settings on validation images, and train the final networks.

    Parameters
    ----------
    cases : sequence of Case
        The cases; runs of all of them are collected together, in three calls.
    design : Design
        Settings and seeds.
    collect : callable
        Trains runs that have no row yet, and returns all rows in order.
    """
    grids = {(case, method): grid for case in cases for method, grid in design.settings(case).items()}
    tuned = tune(grids, collect, design.trial, validation, design.protocol)
    entered = []
    for case in cases:
        of_case = {method: tuned[case, method] for method in (ASCENT, BASE)}
        settings = {method: one.best(design.protocol.best) for method, one in of_case.items()}
        same = design.without_ascent(settings[ASCENT][0])
        entered.append((case, of_case, settings, same, finals(design, settings, same)))
    rows = iter(collect([run for *_, runs in entered for run in runs]))
    return [
        Found(case, of_case, settings, {run: next(rows) for run in runs}, same, design.protocol.final)
        for case, of_case, settings, same, runs in entered
    ]


def finals(design: Design, settings: dict[str, list[Run]], same: Run) -> list[Run]:
    """List the final runs, each once."""
    every = [*settings[BASE], *settings[ASCENT], same]
    return list(dict.fromkeys(replace(setting, seed=seed) for setting in every for seed in design.protocol.final))


def by_noise(found: Sequence[Found], difference: Callable[[Found], list[float]]) -> dict[float, dict[str, list[float]]]:
    """Arrange the differences of cases of one manifold by part of wrong labels and data set."""
    arranged: dict[float, dict[str, list[float]]] = {}
    for f in found:
        arranged.setdefault(f.case.label_noise, {})[f.case.dataset] = difference(f)
    return arranged
