"""The study of cheap ascents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from benchmarks.data import DatasetError
from benchmarks.run import Row
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.cheap.alignment import Cosines, measure_alignment
from benchmarks.studies.cheap.budget import predict
from benchmarks.studies.cheap.contest import Case, Contest, Plan, compete, timings
from benchmarks.studies.cheap.findings import Findings
from benchmarks.studies.cheap.report import report
from benchmarks.studies.cheap.settings import quick_cases
from benchmarks.studies.cheap.timing import Times, measure_times
from benchmarks.studies.cheap.variants import Variant
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.study import ROWS, NothingToReport, NotYet, announce, cost, lookup, present, trainer
from benchmarks.workloads.problem import Workload

__all__ = ["CheapStudy"]

#: Of a smoke test.
QUICK = Plan((0.7, 1.4), Protocol((3000,), 1, (), final=()), (4000, 4001), shown=2, plain=2, most=2, blocks=1)


@dataclass(frozen=True)
class CheapStudy:
    """Study that compares cheap ascents with RSAM.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    asked : mapping of str to Workload
        Data of the cases by their labels.
    settings : callable
        Takes the study's directory; returns the cases whose settings are known.
    plan : Plan
        Seeds, and values of rho.
    """

    name: str
    summary: str
    asked: Mapping[str, Workload]
    settings: Callable[[Path], list[Case]]
    plan: Plan = field(default_factory=Plan)

    def run(self, directory: Path, workers: Workers) -> None:
        """Train and measure what is missing, in the cases whose data are there; nothing before all have settings.

        One variant is chosen over all cases, and is then read on test data: it must not be chosen over some first.
        """
        known = self.settings(directory)
        unknown = {label: data for label, data in self.asked.items() if label not in {case.label for case in known}}
        if waiting := [label for label, data in unknown.items() if present(label, data.load, DatasetError)]:
            said = "the study `fair` has not chosen its settings yet; run it first"
            print(f"nothing is trained: {'; '.join(waiting)}: {said}", file=sys.stderr)
            return
        cases = [c for c in known if present(c.label, c.settings["spheres"].workload.load, DatasetError)]
        if not cases:
            return
        rows, cosines, times = _results(directory)
        announce(predict(cases, self.plan, rows, cosines, times))
        train = trainer(directory, workers)
        compete(
            cases,
            self.plan,
            lambda runs: collect(runs, train, rows, workers),
            lambda runs: collect(runs, measure_alignment, cosines, workers),
        )
        timed = [timing for case in cases for timing in timings(case, self.plan).values()]
        collect(timed, measure_times, times, workers)

    def report(self, directory: Path) -> str:
        """Report on as many cases as are complete together."""
        rows, cosines, times = _results(directory)
        known = self.settings(directory)
        # one variant is chosen over all cases that were there: the same ones have to be found again
        some = (cases for size in range(len(known), 0, -1) for cases in combinations(known, size))
        contest = next(filter(None, (self._contest(cases, rows, cosines) for cases in some)), None)
        if contest is None:
            raise NothingToReport(f"{rows.path} is not complete")
        cases = contest.cases
        timed = {(case.name, kernels): t for case in cases for kernels, t in timings(case, self.plan).items()}
        found = times.find(timed.values())
        findings = Findings(contest, {key: found[timing] for key, timing in timed.items() if timing in found})
        missing = [label for label in self.asked if label not in {case.label for case in cases}]
        return report(findings, self.plan, missing, cost(rows), directory)

    def recommended(self, directory: Path) -> Variant | None:
        """Return the variant that is recommended on spheres; None while a case is not complete."""
        rows, cosines, _ = _results(directory)
        cases = self.settings(directory)
        contest = self._contest(cases, rows, cosines) if len(cases) == len(self.asked) else None
        return None if contest is None else Findings(contest, {}).recommended

    def quick(self) -> CheapStudy:
        """Take few epochs, values of rho and seeds, at settings that are good enough and need no other study."""
        return replace(self, asked={}, settings=quick_cases, plan=QUICK)

    def _contest(self, cases: Sequence[Case], rows: Results[Row], cosines: Results[Cosines]) -> Contest | None:
        find_rows, find_cosines = lookup(rows), lookup(cosines)
        try:
            return compete(cases, self.plan, find_rows, find_cosines)
        except NotYet:
            return None


def _results(directory: Path) -> tuple[Results[Row], Results[Cosines], Results[Times]]:
    return (
        Results(directory / ROWS, Row),
        Results(directory / "cosines.jsonl", Cosines),
        Results(directory / "times.jsonl", Times),
    )
