"""Many runs over the cores of this machine, their rows kept as they come."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from typing import Any

from tqdm import tqdm

from benchmarks.runs.results import C, R, Results


class RunsFailed(Exception):
    """Some runs ended with an error; the rows of all others are kept.

    Attributes
    ----------
    failures : list of (Run, str)
        Each with what happened to it.
    """

    def __init__(self, failures: Sequence[tuple[object, str]]) -> None:
        super().__init__(f"{len(failures)} failed")
        self.failures = failures


def collect(runs: Sequence[C], train: Callable[[C], R], results: Results[R], jobs: int, fresh: bool = False) -> list[R]:
    """Rows of all the runs, after training those that have none yet.

    Parameters
    ----------
    runs : sequence of Run
        What is wanted.
    train : callable
        Trains one of them; a function of a module, since worker processes must find it.
    results : Results
        Where rows are looked up, and put as soon as each is there: what ends this process, Ctrl-C or worse, loses the
        runs in flight and no others.
    jobs : int
        Number of worker processes.
    fresh : bool
        Do each run in a process of its own, whose memory is that run's.

    Returns
    -------
    list of Row
        In the order of ``runs``.

    Raises
    ------
    RunsFailed
        If some failed, after all others have finished.
    """
    found = results.find(runs)
    missing = [run for run in runs if run not in found]
    if found:
        print(f"{len(found)} of {len(runs)} rows reused from {results.path}; delete it to train anew", file=sys.stderr)
    failures: list[tuple[C, str]] = []
    with (
        tqdm(total=len(runs), initial=len(runs) - len(missing), unit="run", file=sys.stderr, smoothing=0) as bar,
        closing(_outcomes(missing, train, jobs, fresh)) as outcomes,
    ):
        for run, outcome in outcomes:
            if isinstance(outcome, str):
                failures.append((run, outcome))
            else:
                results.append(outcome)
                found[run] = outcome
            bar.update()
    if failures:
        raise RunsFailed(failures)
    return [found[run] for run in runs]


def _outcomes(runs: Sequence[C], train: Callable[[C], R], jobs: int, fresh: bool) -> Generator[tuple[C, R | str]]:
    """Each run with its row, or with what went wrong, in the order in which they end."""
    waiting = deque(runs)
    flying: dict[Future[R], C] = {}
    pool = _pool(jobs, fresh)
    try:
        while waiting or flying:
            # no more than can run at a time: the death of a worker fails all that was submitted
            broken = False
            try:
                while waiting and len(flying) < jobs:
                    flying[pool.submit(train, waiting[0])] = waiting[0]
                    waiting.popleft()
            except BrokenProcessPool:
                broken = True
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            if broken or any(isinstance(future.exception(), BrokenProcessPool) for future in done):
                done, _ = wait(flying, return_when=ALL_COMPLETED)
                pool = _pool(jobs, fresh)
            for future in done:
                yield flying.pop(future), _outcome(future)
    finally:
        if flying:  # interrupted: nobody wants their results any more
            for worker in multiprocessing.active_children():
                worker.terminate()
        pool.shutdown(cancel_futures=True)


def _outcome(future: Future[Any]) -> Any:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        return "a worker process died (out of memory, or killed?), and with it all that was running"
    return str(error.__cause__ or error).strip().strip('"')  # the cause is the worker's own traceback


def _pool(jobs: int, fresh: bool) -> ProcessPoolExecutor:
    # spawned, not forked: torch's threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, initializer=_start_worker, max_tasks_per_child=1 if fresh else None)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent process, and do not outlive it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
