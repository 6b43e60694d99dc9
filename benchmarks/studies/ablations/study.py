"""Trace differences between RSAM and SAM to their causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.run import Row, Run
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.ablations.report import report
from benchmarks.studies.ablations.trials import Trials, wanted
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.comparison.study import ComparisonStudy
from benchmarks.studies.study import ROWS, NothingToReport, cost, trainer

__all__ = ["AblationsStudy"]


@dataclass(frozen=True)
class AblationsStudy:
    """Study that explains the differences found by a comparison.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    compared : ComparisonStudy
        The comparison, whose rows are in the same directory of results; missing rows are trained first.
    own : ComparisonStudy
        Additional cases, which enter no verdict.
    """

    name: str
    summary: str
    compared: ComparisonStudy
    own: ComparisonStudy

    def run(self, directory: Path, workers: Workers) -> None:
        """Train the missing runs of the comparison, of the own cases, and at settings other than the chosen ones."""
        there = self._compared(directory)
        there.mkdir(parents=True, exist_ok=True)
        self.compared.run(there, workers)
        self.own.run(directory, workers)
        train, results = trainer(directory, workers), self._results(directory)
        runs = [run for case in self._cases(directory) for run in self._missing(case)]
        collect(runs, train, results, workers)

    def report(self, directory: Path) -> str:
        """Report on the cases whose runs are all there."""
        found = self._results(directory)
        complete, missing = [], []
        for case in self._cases(directory):
            trials = self._trials(case, found.find(self._missing(case)))
            if trials is None:
                missing.append(case[0].case.label)
            else:
                complete.append(trials)
        if not complete:
            raise NothingToReport(f"{found.path} has no complete case")
        return report(complete, missing, self._own(directory), cost(found), directory)

    def quick(self) -> AblationsStudy:
        """Shorten the comparison and the own cases, and let tuning keep two settings."""
        return replace(self, compared=_quick(self.compared), own=_quick(self.own))

    def _cases(self, directory: Path) -> list[list[Entry]]:
        return self.compared.entries(self._compared(directory))[0] + self._own(directory)

    def _own(self, directory: Path) -> list[list[Entry]]:
        return self.own.entries(directory)[0]

    def _compared(self, directory: Path) -> Path:
        return directory.with_name(directory.name.replace(self.name, self.compared.name))

    def _missing(self, entries: Sequence[Entry]) -> list[Run]:
        """List runs that are not part of the comparison."""
        chosen = {entry.tuned.setting for entry in entries}
        runs = [run for setting, run in wanted(entries).items() if setting not in chosen]
        return [replace(run, seed=seed) for run in runs for seed in self.compared.protocol.final]

    def _trials(self, entries: Sequence[Entry], found: dict[Run, Row]) -> Trials | None:
        rows = {entry.tuned.setting: entry.rows for entry in entries}
        for setting, run in wanted(entries).items():
            if setting not in rows:
                of_run = [found.get(replace(run, seed=seed)) for seed in self.compared.protocol.final]
                known = [row for row in of_run if row is not None]
                if len(known) < len(of_run):
                    return None
                rows[setting] = known
        return Trials(entries, rows)

    def _results(self, directory: Path) -> Results[Row]:
        return Results(directory / ROWS, Row)


def _quick(study: ComparisonStudy) -> ComparisonStudy:
    short = study.quick()
    return replace(short, protocol=replace(short.protocol, kept=2))
