"""Comparisons on tasks that live on manifolds."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.runs.tuning import Protocol
from benchmarks.studies.study import NothingToReport, NotYet, cost, each, lookup
from benchmarks.studies.tasks.cases import Case, Grid
from benchmarks.studies.tasks.protocol import Entry, compete, count
from benchmarks.studies.tasks.report import report
from benchmarks.tasks.methods import METHODS
from benchmarks.tasks.training import attempt
from benchmarks.tasks.trial import Outcome, Trial
from benchmarks.workloads.manifolds import TOLERANCE

__all__ = ["PROTOCOL", "Extra", "TasksStudy"]

PROTOCOL = Protocol(kept=3, second=(1001, 1002), final=tuple(range(5)))


@dataclass(frozen=True)
class Extra:
    """What a study draws beside its tables.

    Attributes
    ----------
    run : callable
        Takes the entries and the directory, and keeps there what it needs; called once all is trained.
    report : callable
        Takes the directory; returns Markdown, after writing figures there.
    """

    run: Callable[[Sequence[Sequence[Entry]], Path], None]
    report: Callable[[Path], str]


@dataclass(frozen=True)
class TasksStudy:
    """Compares RSAM with its base optimizers on several cases.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    title : str
        Of the report.
    cases : tuple of Case
        On what; those that others take their settings from come before these.
    little : tuple of Case
        For :meth:`quick`.
    protocol : Protocol
        Seeds.
    extra : Extra, optional
        What else is drawn.
    data : callable, optional
        Loads what may not be on this machine, and raises :class:`~benchmarks.data.MissingDataset` then.
    """

    name: str
    summary: str
    title: str
    cases: tuple[Case, ...]
    little: tuple[Case, ...]
    protocol: Protocol = PROTOCOL
    extra: Extra | None = None
    data: Callable[[], object] | None = None

    def run(self, directory: Path, workers: Workers) -> None:
        """Train what is missing, case by case."""
        if self.data is not None:
            self.data()
        results = self._results(directory)
        seen: set[Trial] = set()
        find = lookup(results)
        with tqdm(total=count(self.cases, self.protocol), unit="trial", file=sys.stderr, smoothing=0) as bar:

            def train(trials: Sequence[Trial]) -> list[Outcome]:
                new = [trial for trial in trials if trial not in seen]  # cases share tuning
                seen.update(new)
                collect(new, attempt, results, workers, bar=bar)
                return find(trials)

            def of_case(case: Case) -> None:
                bar.set_description(case.name)
                compete(case, self._tuned_with(case), train, self.protocol)

            each(self.cases, of_case)
        if self.extra is not None:
            self.extra.run(self.entries(directory)[0], directory)

    def entries(self, directory: Path) -> tuple[list[list[Entry]], list[str]]:
        """Entries of each case that is complete, and labels of the other cases."""
        find = lookup(self._results(directory))
        complete, missing = [], []
        for case in self.cases:
            try:
                complete.append(compete(case, self._tuned_with(case), find, self.protocol))
            except NotYet:
                missing.append(case.label)
        return complete, missing

    def report(self, directory: Path) -> str:
        """Report on the cases that are complete; the others are named."""
        complete, missing = self.entries(directory)
        if not complete:
            raise NothingToReport(f"{self._results(directory).path} has no complete case")
        text = report(
            self.title,
            complete,
            missing,
            len({case.group for case in self.cases}),
            self.protocol,
            f"{cost(self._results(directory))} {on_manifold(self._results(directory))}",
            directory,
        )
        return text if self.extra is None else f"{text}\n\n{self.extra.report(directory)}"

    def quick(self) -> TasksStudy:
        """Some cases, few epochs, two settings, two seeds."""
        cases = tuple(
            replace(case, grid=_corner(case.grid), template=_short(case.template), tuned_with="")
            for case in self.little
        )
        protocol = Protocol(first=(1000,), kept=1, second=(1001,), final=(0, 1))
        return replace(self, cases=cases, protocol=protocol)

    def _tuned_with(self, case: Case) -> Case:
        return next(other for other in self.cases if other.name == (case.tuned_with or case.name))

    def _results(self, directory: Path) -> Results[Outcome]:
        return Results(directory / "trials.jsonl", Outcome)


def on_manifold(results: Results[Outcome]) -> str:
    """Whether all trials, those of tuning included, ended on their manifolds, and which diverged."""
    rows = results.columns("violation", "diverged", "run")
    found = [violation for violation, diverged, _ in rows if not diverged]
    off = sum(violation > 1 for violation in found)
    kept = f"**{off} left their manifolds**" if off else "All that did not diverge ended on their manifolds"
    said = (
        f"{kept}: the largest violation is {max(found, default=math.nan):.2g} of the tolerance "
        f"({TOLERANCE[torch.float32]:g} in single precision, {TOLERANCE[torch.float64]:g} in double)."
    )
    lost = [(violation > 1, run["method"]) for violation, diverged, run in rows if diverged]
    if not lost:
        return f"{said} None diverged."
    by_method = Counter(METHODS[method].label for _, method in lost)
    methods = "; ".join(f"{label} {number}" for label, number in by_method.most_common())
    return f"{said} {len(lost)} diverged ({methods}), {sum(left for left, _ in lost)} of them off their manifolds."


def _corner(grid: Grid) -> Grid:
    return Grid(*(getattr(grid, f.name)[: 1 if f.name in ("sgd", "adam") else 2] for f in fields(grid)))


def _short(trial: Trial) -> Trial:
    return replace(trial, epochs=max(2, trial.epochs // 20))
