"""Who competes, on what."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from benchmarks.run import Knob, Row, Run
from benchmarks.workloads.problem import Workload

__all__ = ["Case", "Contestant", "Grid", "Score"]


@dataclass(frozen=True)
class Grid:
    """What tuning may choose from: each learning rate with each value of a knob."""

    knob: Knob
    rates: tuple[float, ...]
    values: tuple[float, ...]

    def pairs(self) -> list[tuple[float, float]]:
        """List learning rate and value of each setting."""
        return [(lr, value) for lr in self.rates for value in self.values]

    def corner(self) -> Grid:
        """Keep two settings at most, for a smoke test."""
        return Grid(self.knob, self.rates[:1], self.values[:2])


@dataclass(frozen=True)
class Score:
    """What methods are compared by.

    Attributes
    ----------
    name : str
        A key of :attr:`Row.scores`.
    unit : float
        What scores are multiplied by in tables.
    worst : float, optional
        The score of a model that diverged: that of one that has learnt nothing; that of its last weights by default.
    smaller : bool
        Whether the score is better the smaller it is.
    """

    name: str = "accuracy"
    unit: float = 100.0
    worst: float | None = None
    smaller: bool = False

    def of(self, row: Row) -> float:
        """Score a row, as tables show it."""
        if row.diverged and self.worst is not None:
            return self.unit * self.worst
        return self.unit * row.scores[self.name]

    def tuned(self, row: Row) -> float:
        """Score a row so that more is better, for tuning."""
        score = row.scores.get(self.name, math.nan)
        if row.diverged or math.isnan(score):
            return -math.inf
        return -score if self.smaller else score


@dataclass(frozen=True)
class Contestant:
    """A method in a comparison.

    Attributes
    ----------
    name, label : str
        By which it is found, and for tables.
    method : str
        See :data:`benchmarks.methods.METHODS`.
    grid : Grid
        What its tuning may choose from.
    kernels : str
        Where kernels live, for workloads that ask.
    passes : float
        How many times the epochs of a case it trains for.
    settings_of : str
        The contestant whose chosen setting it takes whole, though its method may not heed all of it; empty to be tuned
        for itself.
    base : str
        The contestant without its ascent, to be compared with; empty if there is none.
    """

    name: str
    label: str
    method: str
    grid: Grid
    kernels: str = ""
    passes: float = 1.0
    settings_of: str = ""
    base: str = ""


@dataclass(frozen=True)
class Case:
    """A workload and a budget, on which contestants are compared.

    Attributes
    ----------
    name, label : str
        For files, and for tables.
    template : Run
        All of a run but method, seed, learning rate and knob.
    contestants : tuple of Contestant
        Who competes, in the order of tables.
    score : Score
        What they are tuned and compared by.
    group : str
        The question that the case is a part of, where conclusions are means over the cases of a group.
    note : str
        What the seeds vary, and what else one should know.
    main : bool
        Whether verdicts look at it.
    tuned_with : str
        The name of another case, whose settings are taken; empty to tune for itself.
    """

    name: str
    label: str
    template: Run
    contestants: tuple[Contestant, ...]
    score: Score = Score()
    group: str = ""
    note: str = ""
    main: bool = True
    tuned_with: str = ""

    def epochs(self, contestant: Contestant) -> int:
        """Count the epochs that a contestant trains for."""
        return round(self.template.epochs * contestant.passes)

    def run(self, contestant: Contestant, lr: float, value: float) -> Run:
        """Describe the final run of seed 0 at a learning rate and a value of the knob."""
        run = replace(self.template, method=contestant.method, lr=lr)
        return self.adopt(contestant, contestant.grid.knob.turn(run, value))

    def adopt(self, contestant: Contestant, setting: Run) -> Run:
        """Take over a setting of another case."""
        epochs, measures = self.epochs(contestant), self.template.measures
        return replace(setting, workload=self._workload(contestant), epochs=epochs, measures=measures)

    def settings(self, contestant: Contestant) -> list[Run]:
        """List what tuning may choose from."""
        return [self.run(contestant, lr, value) for lr, value in contestant.grid.pairs()]

    def quick(self) -> Case:
        """Keep two settings of each contestant, and tune the case for itself."""
        few = tuple(replace(c, grid=c.grid.corner()) for c in self.contestants)
        return replace(self, contestants=few, tuned_with="")

    def _workload(self, contestant: Contestant) -> Workload:
        if not contestant.kernels:
            return self.template.workload
        return replace(self.template.workload, kernels=contestant.kernels)  # type: ignore[type-var]
