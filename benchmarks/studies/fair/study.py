"""The study of Riemannian SAM and SAM where all methods have the same knobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.report.forest import Group
from benchmarks.run import Row, Run
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.comparison.cases import Case
from benchmarks.studies.comparison.contest import find, outstanding
from benchmarks.studies.comparison.report import on_manifold
from benchmarks.studies.comparison.study import find_entries, train_cases
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.costs import seconds
from benchmarks.studies.fair.cases import QUICK_CASES, QUICK_PROTOCOL, QUICK_READ, Read
from benchmarks.studies.fair.comparisons import answers
from benchmarks.studies.fair.contestants import CONTESTANTS, VARIANTS
from benchmarks.studies.fair.figures import claim_groups
from benchmarks.studies.fair.report import report
from benchmarks.studies.study import ROWS, NothingToReport, announce, cost, present, trainer

__all__ = ["FairStudy"]


@dataclass(frozen=True)
class FairStudy:
    """Tunes all methods over random samples of settings, and trains the best ones with other seeds.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    cases : tuple of Case
        The cases.
    protocol : Protocol
        Seeds.
    read : Read
        Where the recommended variant is read.
    recommended : str
        The variant; empty until one is chosen.
    """

    name: str
    summary: str
    cases: tuple[Case, ...]
    protocol: Protocol
    read: Read
    recommended: str = ""

    def __post_init__(self) -> None:
        if self.recommended and self.recommended not in VARIANTS:
            raise ValueError(f"recommended must be one of {', '.join(VARIANTS)}, got {self.recommended!r}")

    def run(self, directory: Path, workers: Workers) -> None:
        """Train what is missing, case by case; then the recommended variant on more images, if there is one."""
        results, train = self._results(directory), trainer(directory, workers)
        cases = [case for case in self.cases if present(case.label, case.template.workload.load)]
        announce([seconds(run) for run in self.outstanding(cases, directory)])
        train_cases(cases, self.protocol, results, train, workers)
        if reading := [run for runs in self._reading(directory).values() for run in runs]:
            collect(reading, train, results, workers)

    def report(self, directory: Path) -> str:
        """Report on the complete cases, and name the others."""
        results = self._results(directory)
        cases, missing = find_entries(self.cases, self.protocol, results)
        if not cases:
            raise NothingToReport(f"{results.path} has no complete case")
        costs = f"{cost(results)} {on_manifold(results, cases)}".strip()
        reading = self._reading(directory)
        rows = results.find(run for runs in reading.values() for run in runs)
        complete = all(run in rows for runs in reading.values() for run in runs)
        read = {name: [rows[run] for run in runs] for name, runs in reading.items()} if complete else {}
        return report(cases, missing, self.protocol, costs, read, directory)

    def claims(self, directory: Path) -> list[Group]:
        """Lay out what decides the claims, as soon as there is a complete case."""
        cases, missing = find_entries(self.cases, self.protocol, self._results(directory))
        return claim_groups(answers(cases, len(missing))) if cases else []

    def quick(self) -> FairStudy:
        """Take small cases, few epochs, two settings and two seeds."""
        return replace(self, cases=QUICK_CASES, protocol=QUICK_PROTOCOL, read=QUICK_READ, recommended=VARIANTS[0])

    def outstanding(self, cases: Sequence[Case], directory: Path) -> list[Run]:
        """List the networks that are not trained yet, without those in ranges that have yet to be widened."""
        results = self._results(directory)
        lacking = [run for case in cases for run in outstanding(case, results.find, self.protocol)]
        reading = [run for runs in self._reading(directory).values() for run in runs]
        there = results.find(reading)
        return [*lacking, *(run for run in reading if run not in there)]

    def _reading(self, directory: Path) -> dict[str, list[Run]]:
        """List the runs on more images by contestant, the recommended one first.

        None before it is written down, and before all cases are complete, over which it is to be chosen.
        """
        if not self.recommended:
            return {}
        complete, missing = find_entries(self.cases, self.protocol, self._results(directory))
        if missing:
            return {}
        (entries,) = (case for case in complete if case[0].case.name == self.read.case)
        names = (self.recommended, "sam", CONTESTANTS[self.recommended].base, "sgd")
        settings = {name: find(entries, name).rows[0].run for name in names}
        return {name: [self.read.run(run, seed) for seed in self.read.seeds] for name, run in settings.items()}

    def _results(self, directory: Path) -> Results[Row]:
        return Results(directory / ROWS, Row)
