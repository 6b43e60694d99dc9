"""What a study is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.runs.configuration import Run
from benchmarks.runs.parallel import collect
from benchmarks.runs.results import Results, Row
from benchmarks.runs.training import train


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

    def run(self, directory: Path, jobs: int) -> str:
        """Do what is not done yet, write files to ``directory``, and return what to print."""
        ...


@dataclass(frozen=True)
class TrainingStudy:
    """A study that trains networks: which ones is declared, and its report looks at their rows only.

    Attributes
    ----------
    name, summary : str
        See :class:`Study`.
    runs : tuple of Run
        The networks to train.
    report : callable
        Takes their rows and the directory for files; returns what to print.
    """

    name: str
    summary: str
    runs: tuple[Run, ...]
    report: Callable[[Sequence[Row], Path], str]

    def run(self, directory: Path, jobs: int) -> str:
        """Train what has no row in ``directory/runs.jsonl`` yet, and report on all."""
        results = Results(directory / "runs.jsonl", Row)
        rows = collect(self.runs, train, results, jobs)
        return f"{self.report(rows, directory)}\n\nresults: {results.path}"
