"""What a study is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.run import Row, Run
from benchmarks.runs.parallel import RunsFailed, Workers
from benchmarks.runs.results import C, R, Results
from benchmarks.runs.training import train

__all__ = ["ROWS", "NotYet", "NothingToReport", "Study", "cost", "each", "lookup", "preliminary", "trainer"]

#: The file of a study's rows in its directory.
ROWS = "rows.jsonl"

K = TypeVar("K")


class NothingToReport(Exception):
    """There are no results yet."""


class NotYet(Exception):
    """A row is missing."""


def lookup(results: Results[R]) -> Callable[[Sequence[C]], list[R]]:
    """Return a function that finds rows of runs, in order, and raises :class:`NotYet` where one is missing."""

    def find(runs: Sequence[C]) -> list[R]:
        found = results.find(runs)
        if len(found) < len(set(runs)):
            raise NotYet
        return [found[run] for run in runs]

    return find


def each(cases: Iterable[K], run: Callable[[K], object]) -> None:
    """Run case after case; a run that fails keeps its own case from its end, and no other.

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
        except NotYet:  # it takes its settings from a case of which a run failed
            continue
    if failures:
        raise RunsFailed(failures)


def preliminary(missing: Sequence[str]) -> list[str]:
    """Warn while cases are missing that conclusions are drawn from."""
    return [f"**Preliminary**: without {'; '.join(missing)}."] if missing else []


def cost(*results: Results[R]) -> str:
    """Say what all runs of a study took, those of tuning included."""
    seconds = [value for one in results for (value,) in one.columns("seconds")]
    return f"{len(seconds)} runs, tuning included, took {sum(seconds) / 3600:.1f} hours of one core."


class Study(Protocol):
    """Something that can be run, and reports.

    Attributes
    ----------
    name : str
        As typed.
    summary : str
        One line.
    """

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    def run(self, directory: Path, workers: Workers) -> None:
        """Do what is not done yet, and keep it in ``directory``."""
        ...

    def report(self, directory: Path) -> str:
        """Markdown on what is kept in ``directory``; figures go there too.

        Raises
        ------
        NothingToReport
            If there is nothing yet.
        """
        ...

    def quick(self) -> Study:
        """Shorten the study: everything is tried, in less than five minutes on two cores, and nothing proved."""
        ...


def trainer(directory: Path, workers: Workers) -> Callable[[Run], Row]:
    """Return a function that trains the runs of a study, and keeps weights if that is asked for."""
    return partial(train, weights=(directory / "weights").absolute() if workers.keep_weights else None)
