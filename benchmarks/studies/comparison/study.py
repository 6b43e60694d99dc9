"""Run a comparison: tune, train and report every case."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.data import DatasetError
from benchmarks.run import Row, Run
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.comparison.cases import Case
from benchmarks.studies.comparison.contest import Entry, compete, count
from benchmarks.studies.comparison.report import Rules, on_manifold, report
from benchmarks.studies.comparison.tables import Cases
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.study import ROWS, NothingToReport, NotYet, cost, each, lookup, present, trainer

__all__ = ["ComparisonStudy", "Extra", "find_entries", "train_cases"]


def train_cases(
    cases: Sequence[Case], protocol: Protocol, results: Results[Row], train: Callable[[Run], Row], workers: Workers
) -> None:
    """Train the missing runs of cases, one case after the other; skip those whose data are missing, with a message."""
    # a case whose data are missing or damaged does not keep the others from running
    there = [case for case in cases if present(case.label, case.template.workload.load, DatasetError)]
    seen: set[Run] = set()
    find = lookup(results)
    with tqdm(total=count(there, protocol), unit="run", file=sys.stderr, smoothing=0) as bar:

        def gather(runs: Sequence[Run]) -> list[Row]:
            new = [run for run in runs if run not in seen]  # cases share tuning runs
            seen.update(new)
            collect(new, train, results, workers, bar=bar)
            return find(runs)

        def of_case(case: Case) -> None:
            bar.set_description(case.name)
            compete(case, gather, protocol, _tuned_with(case, cases))

        each(there, of_case)


def find_entries(
    cases: Sequence[Case], protocol: Protocol, results: Results[Row]
) -> tuple[list[list[Entry]], list[str]]:
    """Return the entries of each complete case, and the labels of the other cases."""
    find = lookup(results)
    complete, missing = [], []
    for case in cases:
        try:
            complete.append(compete(case, find, protocol, _tuned_with(case, cases)))
        except NotYet:
            missing.append(case.label)
    return complete, missing


def _tuned_with(case: Case, cases: Sequence[Case]) -> Case:
    return next(other for other in cases if other.name == (case.tuned_with or case.name))


@dataclass(frozen=True)
class Extra:
    """Further part of a study's report, with runs of its own.

    Attributes
    ----------
    run : callable
        Takes the entries and the directory, and writes there the data of its figures; called after all training.
    report : callable
        Takes the directory; writes figures there, and returns Markdown.
    """

    run: Callable[[Cases, Path], None]
    report: Callable[[Path], str]


@dataclass(frozen=True)
class ComparisonStudy:
    """Study that compares methods of training on several cases.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    title : str
        Of the report.
    question : str
        In one sentence, below the title.
    cases : tuple of Case
        The cases; one that others take settings from comes before these.
    quick_cases : tuple of Case
        Cases of the quick version.
    rules : Rules
        Questions of the report and how it answers them.
    protocol : Protocol
        Seeds.
    extra : Extra, optional
        Further part of the report.
    """

    name: str
    summary: str
    title: str
    question: str
    cases: tuple[Case, ...]
    quick_cases: tuple[Case, ...]
    rules: Rules
    protocol: Protocol = field(default_factory=Protocol)
    extra: Extra | None = None

    def run(self, directory: Path, workers: Workers) -> None:
        """Train missing runs, case by case; skip cases whose data are missing, with a message."""
        train_cases(self.cases, self.protocol, self._results(directory), trainer(directory, workers), workers)
        if self.extra is not None:
            self.extra.run(self.entries(directory)[0], directory)

    def entries(self, directory: Path) -> tuple[list[list[Entry]], list[str]]:
        """Return the entries of each complete case, and the labels of the other cases."""
        return find_entries(self.cases, self.protocol, self._results(directory))

    def report(self, directory: Path) -> str:
        """Report on the complete cases, and name the others."""
        complete, missing = self.entries(directory)
        results = self._results(directory)
        if not complete:
            raise NothingToReport(f"{results.path} has no complete case")
        costs = f"{cost(results)} {on_manifold(results, complete)}".strip()
        asked = len({case.group for case in self.cases})
        text = report(self.title, self.question, self.rules, complete, missing, asked, self.protocol, costs, directory)
        return text if self.extra is None else f"{text}\n\n{self.extra.report(directory)}"

    def quick(self) -> ComparisonStudy:
        """Take small cases, few epochs, two settings and two seeds."""
        protocol = Protocol(first=(1000,), kept=1, second=(1001,), final=(0, 1))
        return replace(self, cases=tuple(case.quick() for case in self.quick_cases), protocol=protocol)

    def _results(self, directory: Path) -> Results[Row]:
        return Results(directory / ROWS, Row)
