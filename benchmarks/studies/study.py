"""Define what every study can do, and share the helpers to train and report it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.data import DatasetError, MissingDataset
from benchmarks.run import Row, Run
from benchmarks.runs.parallel import RunsFailed, Workers
from benchmarks.runs.results import C, R, Results
from benchmarks.runs.training import train

__all__ = [
    "PRELIMINARY",
    "ROWS",
    "NotYet",
    "NothingToReport",
    "Study",
    "announce",
    "cost",
    "each",
    "lookup",
    "preliminary",
    "present",
    "trainer",
]

#: The file of a study's rows in its directory.
ROWS = "rows.jsonl"
#: How a warning begins in a report that lacks cases.
PRELIMINARY = "**Preliminary**"

K = TypeVar("K")


class NothingToReport(Exception):
    """The study has no results yet."""


class NotYet(Exception):
    """The row of a run is missing."""


def lookup(results: Results[R]) -> Callable[[Sequence[C]], list[R]]:
    """Return a function that finds the rows of runs, in order, and raises :class:`NotYet` if one is missing."""

    def find(runs: Sequence[C]) -> list[R]:
        rows = results.find(runs)
        if len(rows) < len(set(runs)):
            raise NotYet
        return [rows[run] for run in runs]

    return find


def each(cases: Iterable[K], run: Callable[[K], object]) -> None:
    """Run case after case; a failed run stops its own case only.

    Raises
    ------
    RunsFailed
        At the end, with the failures of all cases.
    """
    failures: list[tuple[object, str]] = []
    for case in cases:
        try:
            run(case)
        except RunsFailed as error:
            failures += error.failures
        except NotYet:  # the case takes settings from one of which a run failed
            continue
    if failures:
        raise RunsFailed(failures)


def preliminary(missing: Sequence[str]) -> list[str]:
    """Warn if cases are missing that conclusions depend on."""
    return [f"{PRELIMINARY}: without {'; '.join(missing)}."] if missing else []


def present(label: str, load: Callable[[], object], skipped: type[DatasetError] = MissingDataset) -> bool:
    """Return whether a data set can be loaded; print an error that is to be skipped, which says what to do."""
    try:
        load()
    except skipped as error:
        print(f"skipped: {label}: {error}", file=sys.stderr)
        return False
    return True


def announce(seconds: Sequence[float]) -> None:
    """Print how long networks will take, from the predicted seconds of each; nothing if there are none."""
    if seconds:
        hours = sum(seconds) / 3600
        long = f"{hours:.1f} hours" if hours >= 1 else f"{max(60 * hours, 1):.0f} minutes"
        print(f"{len(seconds)} networks to train, about {long} of one core", file=sys.stderr)


def cost(*results: Results[R], tuned: bool = True) -> str:
    """Say how many runs a study took, and how much time, tuning included if there was any."""
    seconds = [value for one in results for (value,) in one.columns("seconds")]
    runs = f"{len(seconds)} runs, tuning included," if tuned else f"{len(seconds)} runs"
    return f"{runs} took {sum(seconds) / 3600:.1f} hours of one core."


class Study(Protocol):
    """Interface of a study: it runs, and reports.

    Attributes
    ----------
    name : str
        Name on the command line.
    summary : str
        Description in one line.
    """

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    def run(self, directory: Path, workers: Workers) -> None:
        """Make the missing runs, and keep their results in ``directory``."""
        ...

    def report(self, directory: Path) -> str:
        """Return a report in Markdown on the results in ``directory``, and write its figures there.

        Raises
        ------
        NothingToReport
            If there are no results yet.
        """
        ...

    def quick(self) -> Study:
        """Shorten the study to a smoke test of less than five minutes on two cores."""
        ...


def trainer(directory: Path, workers: Workers) -> Callable[[Run], Row]:
    """Return a function that trains a run of a study, and keeps the weights if the workers are to."""
    return partial(train, weights=(directory / "weights").absolute() if workers.keep_weights else None)
