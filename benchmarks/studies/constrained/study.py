"""Run the study: settings of all cases, then the best with further seeds, then the final networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from benchmarks.data import load
from benchmarks.run import Row, Run
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.cheap import CHEAP
from benchmarks.studies.comparison.contest import noting, random_score, stand_in
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.constrained.added import add_ascent
from benchmarks.studies.constrained.contest import Collect, Found, compete
from benchmarks.studies.constrained.design import Case, Design
from benchmarks.studies.constrained.report import report
from benchmarks.studies.constrained.rules import DECIDING
from benchmarks.studies.costs import seconds
from benchmarks.studies.study import ROWS, NothingToReport, NotYet, announce, cost, lookup, present, trainer
from benchmarks.workloads.samples import VALIDATION

__all__ = ["ConstrainedStudy"]

#: How often a network is scored, and test examples of it; see :data:`~benchmarks.runs.measurement.FIFTHS`.
_SCORED, _TEST = 5, 7_000


@dataclass(frozen=True)
class ConstrainedStudy:
    """Compares the ascent with other remedies against overfitting where kernels cannot decay.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    design : Design
        What is trained.
    """

    name: str
    summary: str
    design: Design = field(default_factory=Design)

    def run(self, directory: Path, workers: Workers) -> None:
        """Tune and train what is missing; skip data sets that are not there."""
        results, train = self._results(directory), trainer(directory, workers)
        there = [label for label, name in self.design.datasets.items() if present(label, partial(load, name))]
        cases = self.design.cases(there)
        if cases:
            announce([_seconds(run) for run in _missing(cases, self.design, results)])
            _all(cases, self.design, lambda runs: collect(runs, train, results, workers))

    def report(self, directory: Path) -> str:
        """Report on the complete cases, and name the others."""
        results = self._results(directory)
        found: list[Found] = []
        added: list[Found] = []
        missing = []
        for case in self.design.cases([*self.design.datasets]):
            try:
                found += compete([case], self.design, lookup(results))
            except NotYet:
                missing.append(case.label)
                continue
            try:
                added += add_ascent(found[-1:], self.design, lookup(results))
            except NotYet:
                missing.append(f"{case.label}, ascent on top")
        if not found:
            raise NothingToReport(f"{results.path} has no complete case")
        cheap = CHEAP.recommended(directory.parent / CHEAP.name)
        asked = None if cheap is None else cheap.fields
        return report(found, added, missing, self.design, asked, cost(results), directory)

    def quick(self) -> ConstrainedStudy:
        """Shorten the study to images that come with it, few settings and two seeds."""
        mini = {"Fashion-MNIST mini": "fashion_mnist_mini"}
        protocol = Protocol(kept=2, second=(1001,), final=(0, 1), best=2)
        design = replace(
            self.design, datasets=mini, label_noise=DECIDING, examples=256, epochs=2, trials=2, protocol=protocol
        )
        return replace(self, design=design)

    def _results(self, directory: Path) -> Results[Row]:
        return Results(directory / ROWS, Row)


def _all(cases: Sequence[Case], design: Design, collect: Collect) -> None:
    add_ascent(compete(cases, design, collect), design, collect)


def _seconds(run: Run) -> float:
    return seconds(run, _SCORED, VALIDATION + (_TEST if run.heldout == "test" else 0))


def _missing(cases: Sequence[Case], design: Design, results: Results[Row]) -> list[Run]:
    """List the runs of cases that have no row; those that depend on such by networks that take about as long."""
    missing: list[Run] = []
    _all(cases, design, noting(missing, results.find, _random))
    return missing


def _random(run: Run) -> Row:
    """Make a row of a random score: if all were equal, both methods would share a best setting and its networks."""
    return replace(stand_in(run), curves={"accuracy": [random_score(run)]})
