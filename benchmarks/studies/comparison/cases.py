"""Define contestants, their grids of settings, and the cases that they compete on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks.run import Knob, Row, Run
from benchmarks.studies.comparison.sampling import Sample
from benchmarks.workloads.problem import Workload

__all__ = ["Case", "Contestant", "Grid", "Score"]


@dataclass(frozen=True)
class Grid:
    """Grid of settings to tune over: each learning rate with each value of a knob."""

    knob: Knob
    rates: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """Knobs that are tuned."""
        return Knob.LR, self.knob

    def pairs(self) -> list[tuple[float, float]]:
        """List the learning rate and the knob's value of each setting."""
        return [(lr, value) for lr in self.rates for value in self.values]

    def settings(self, run: Run) -> list[Run]:
        """Turn the learning rate and the knob of a run to each setting."""
        return [self.knob.turn(replace(run, lr=lr), value) for lr, value in self.pairs()]

    def corner(self) -> Grid:
        """Keep two settings at most, for a smoke test."""
        return Grid(self.knob, self.rates[:1], self.values[:2])


@dataclass(frozen=True)
class Score:
    """Score that methods are compared by.

    Attributes
    ----------
    name : str
        A key of :attr:`Row.scores`.
    unit : float
        Factor of the scores in tables.
    worst : float, optional
        Score to give a model that diverged: the score of a model that has learnt nothing. By default the score of its
        last weights.
    smaller : bool
        Whether smaller scores are better.
    """

    name: str = "accuracy"
    unit: float = 100.0
    worst: float | None = None
    smaller: bool = False

    def of(self, row: Row) -> float:
        """Return a row's score in the unit of tables."""
        if row.diverged and self.worst is not None:
            return self.unit * self.worst
        return self.unit * row.scores[self.name]

    def tuned(self, row: Row) -> float:
        """Return a row's score with the sign that makes larger better, for tuning."""
        score = row.scores.get(self.name, math.nan)
        if row.diverged or math.isnan(score):
            return -math.inf
        return -score if self.smaller else score


@dataclass(frozen=True)
class Contestant:
    """Contestant of a comparison: a method with its grid.

    Attributes
    ----------
    name, label : str
        Name to find it by, and label for tables.
    method : str
        See :data:`benchmarks.methods.METHODS`.
    grid : Grid or Sample
        Settings to tune over.
    kernels : str
        Manifold of the kernels, for workloads that have a choice.
    passes : float
        Number of epochs as a multiple of the case's.
    settings_of : str
        Name of a contestant whose chosen setting this one takes over as a whole, even if its own method ignores a part;
        empty if it is tuned itself.
    base : str
        Name of the contestant that differs only by having no ascent, to compare with; empty if there is none.
    """

    name: str
    label: str
    method: str
    grid: Grid | Sample
    kernels: str = ""
    passes: float = 1.0
    settings_of: str = ""
    base: str = ""


@dataclass(frozen=True)
class Case:
    """Workload and budget on which contestants are compared.

    Attributes
    ----------
    name, label : str
        Name for files, and label for tables.
    template : Run
        Run that fixes everything except method, seed and what is tuned.
    contestants : tuple of Contestant
        The contestants in the order of tables.
    score : Score
        Score that they are tuned and compared by.
    group : str
        Group of the case, for conclusions that are means over a group of cases.
    note : str
        Remark for the report, for example on what the seeds vary.
    main : bool
        Whether the case enters verdicts.
    tuned_with : str
        Name of another case whose chosen settings are used; empty if the case is tuned itself.
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
        """Return the number of epochs that a contestant trains for."""
        return round(self.template.epochs * contestant.passes)

    def run(self, contestant: Contestant, lr: float, value: float) -> Run:
        """Describe a contestant's final run of seed 0 at a learning rate and a value of its last knob."""
        run = replace(self.template, method=contestant.method, lr=lr)
        return self.adopt(contestant, contestant.grid.knobs[-1].turn(run, value))

    def adopt(self, contestant: Contestant, setting: Run) -> Run:
        """Move a setting of another case to this one."""
        epochs, measures = self.epochs(contestant), self.template.measures
        return replace(setting, workload=self._workload(contestant), epochs=epochs, measures=measures)

    def settings(self, contestant: Contestant) -> list[Run]:
        """List the settings that a contestant is tuned over, as its final runs of seed 0."""
        settings = contestant.grid.settings(replace(self.template, method=contestant.method))
        return [self.adopt(contestant, setting) for setting in settings]

    def widened(self, chosen: Mapping[str, Run]) -> Case:
        """Widen a range, for all contestants that share it, where the chosen setting of one of them lies at its end.

        Parameters
        ----------
        chosen : mapping of str to Run
            The best setting of contestants by their names.

        Returns
        -------
        Case
            The case itself if no range is to be widened.
        """
        shared = {
            (one, upper)
            for c in self.contestants
            if isinstance(c.grid, Sample) and c.name in chosen
            for knob, upper in c.grid.ends(chosen[c.name])
            for one in c.grid.ranges
            if one.knob is knob
        }

        def wider(grid: Grid | Sample) -> Grid | Sample:
            if isinstance(grid, Sample):
                for one, upper in ((r, upper) for r in grid.ranges for upper in (False, True)):
                    grid = grid.widened(one.knob, upper) if (one, upper) in shared else grid
            return grid

        return replace(self, contestants=tuple(replace(c, grid=wider(c.grid)) for c in self.contestants))

    def quick(self) -> Case:
        """Keep two settings of each contestant, and tune on the case itself."""
        few = tuple(replace(c, grid=c.grid.corner()) for c in self.contestants)
        return replace(self, contestants=few, tuned_with="")

    def _workload(self, contestant: Contestant) -> Workload:
        if not contestant.kernels:
            return self.template.workload
        return replace(self.template.workload, kernels=contestant.kernels)  # type: ignore[type-var]
