"""The comparison of optimizers: every case tuned, trained and reported."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.data import DatasetError, load
from benchmarks.methods import METHODS
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results, Row
from benchmarks.runs.tuning import Protocol
from benchmarks.studies.optimizers.cases import Case
from benchmarks.studies.optimizers.grids import grid
from benchmarks.studies.optimizers.protocol import Entry, Settings, compete, count
from benchmarks.studies.optimizers.report import report
from benchmarks.studies.study import NothingToReport, NotYet, cost, each, lookup, trainer

__all__ = ["OptimizersStudy"]


def full_grid(method: str) -> list[tuple[float, float]]:
    """All settings of a method."""
    return grid(METHODS[method])


def corners(method: str) -> list[tuple[float, float]]:
    """Two settings of a method, of neighbouring learning rates."""
    return grid(METHODS[method])[9:11]


@dataclass(frozen=True)
class OptimizersStudy:
    """Compares methods of training on several cases.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    title : str
        Of the report.
    cases : tuple of Case
        On what.
    little : tuple of Case
        On what instead when it shall be quick.
    protocol : Protocol
        Seeds.
    settings : callable
        Grid of a method.
    """

    name: str
    summary: str
    title: str
    cases: tuple[Case, ...]
    little: tuple[Case, ...]
    protocol: Protocol = field(default_factory=Protocol)
    settings: Settings = full_grid

    def run(self, directory: Path, workers: Workers) -> None:
        """Train what is missing, case by case; cases whose data are not here are skipped, with a line that says so."""
        results, train = self._results(directory), trainer(directory, workers)
        cases = [case for case in self.cases if _present(case)]
        total = sum(count(case, self.protocol, self.settings) for case in cases)
        with tqdm(total=total, unit="run", file=sys.stderr, smoothing=0) as bar:

            def of_case(case: Case) -> None:
                bar.set_description(case.name)
                compete(
                    case, lambda runs: collect(runs, train, results, workers, bar=bar), self.protocol, self.settings
                )

            each(cases, of_case)

    def entries(self, directory: Path) -> tuple[list[list[Entry]], list[str]]:
        """Entries of each case that is complete, and labels of the other cases."""
        find = lookup(self._results(directory))
        complete, missing = [], []
        for case in self.cases:
            try:
                complete.append(compete(case, find, self.protocol, self.settings))
            except NotYet:
                missing.append(case.label)
        return complete, missing

    def report(self, directory: Path) -> str:
        """Report on the cases that are complete; the others are named."""
        complete, missing = self.entries(directory)
        if not complete:
            raise NothingToReport(f"{self._results(directory).path} has no complete case")
        return report(self.title, complete, missing, self.protocol, cost(self._results(directory)), directory)

    def quick(self) -> OptimizersStudy:
        """Small cases, few epochs, two settings, two seeds."""
        protocol = Protocol(first=(1000,), kept=1, second=(1001,), final=(0, 1))
        return replace(self, cases=self.little, protocol=protocol, settings=corners)

    def _results(self, directory: Path) -> Results[Row]:
        return Results(directory / "runs.jsonl", Row)


def _present(case: Case) -> bool:
    try:
        load(case.template.dataset)
    except DatasetError as error:  # missing or damaged: the others can be had
        print(f"skipped: {case.label}: {error}", file=sys.stderr)
        return False
    return True
