"""Train many runs at a time, and keep each row as soon as its run ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass

from tqdm import tqdm

from benchmarks.runs import cluster, processes
from benchmarks.runs.results import C, R, Results

__all__ = ["RunsFailed", "Workers", "collect"]


@dataclass(frozen=True)
class Workers:
    """Processes or cluster that train the runs.

    Attributes
    ----------
    jobs : int
        Number of processes on this machine.
    scheduler : str, optional
        Address of a Dask scheduler whose workers train instead, or ``"local"`` for a Dask cluster of ``jobs`` processes
        on this machine.
    keep_weights : bool
        Whether each worker keeps the weights of the networks that are measured on test data, on its own disk.
    """

    jobs: int = 1
    scheduler: str | None = None
    keep_weights: bool = False


class RunsFailed(Exception):
    """Some runs ended with an error; the rows of all others are kept.

    Attributes
    ----------
    failures : list of (Run, str)
        Each failed run with its error.
    """

    def __init__(self, failures: Sequence[tuple[object, str]]) -> None:
        super().__init__(f"{len(failures)} failed")
        self.failures = failures


def collect(
    runs: Sequence[C],
    train: Callable[[C], R],
    results: Results[R],
    workers: Workers,
    *,
    fresh: bool = False,
    bar: tqdm | None = None,
) -> list[R]:
    """Train the runs that have no row yet, and return the rows of all.

    Parameters
    ----------
    runs : sequence of Run
        The runs whose rows are wanted.
    train : callable
        Trains one run; a function at the top level of a module, so that worker processes can import it.
    results : Results
        File of rows. Each new row is appended as soon as its run ends, so that Ctrl-C or a crash loses only the runs in
        flight.
    workers : Workers
        The processes that train.
    fresh : bool
        Train each run in a new process on this machine, so that the peak memory of the process is that of the run.
    bar : tqdm, optional
        Progress bar of several calls; by default a bar for this call.

    Returns
    -------
    list of Row
        In the order of ``runs``.

    Raises
    ------
    RunsFailed
        If some failed, after all others have finished.
    ResultsError
        If another process writes to these results.
    """
    rows = results.find(runs)
    missing = [run for run in runs if run not in rows]
    if rows and bar is None:
        print(f"{len(rows)} of {len(runs)} rows reused from {results.path}; delete it to train anew", file=sys.stderr)
    failures: list[tuple[C, str]] = []
    with (
        results.alone() if missing else nullcontext(),
        _progress(len(runs), bar) as shown,
        closing(_outcomes(missing, train, workers, fresh)) as outcomes,
    ):
        shown.initial += len(rows)  # done from the start: the estimate of the time left ignores them
        shown.update(len(rows))
        for run, outcome in outcomes:
            if isinstance(outcome, str):
                failures.append((run, outcome))
            else:
                results.append(outcome)
                rows[run] = outcome
            shown.update()
    if failures:
        raise RunsFailed(failures)
    return [rows[run] for run in runs]


def _progress(total: int, bar: tqdm | None) -> AbstractContextManager[tqdm]:
    if bar is not None:
        return nullcontext(bar)
    return tqdm(total=total, unit="run", file=sys.stderr, smoothing=0)


def _outcomes(
    runs: Sequence[C], train: Callable[[C], R], workers: Workers, fresh: bool
) -> Generator[tuple[C, R | str]]:
    """Yield each run with its row or its error, in the order in which they end."""
    if not runs:  # start no process
        return
    if workers.scheduler is None or fresh:
        yield from processes.outcomes(runs, train, workers.jobs, fresh)
    else:
        yield from cluster.outcomes(runs, train, workers.jobs, workers.scheduler)
