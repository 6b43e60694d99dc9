"""Distribute runs over the cores of this machine, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from benchmarks.runs.results import C, R

__all__ = ["outcomes"]


def outcomes(runs: Sequence[C], train: Callable[[C], R], jobs: int, fresh: bool) -> Generator[tuple[C, R | str]]:
    """Yield each run with its row or its error, in the order in which they end."""
    waiting = deque(runs)
    flying: dict[Future[R], C] = {}
    pool = _pool(jobs, fresh)
    try:
        while waiting or flying:
            # submit no more runs than can run at a time, since the death of a worker fails all submitted ones
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
        if flying:  # interrupted: the results are not needed any more
            for worker in multiprocessing.active_children():
                worker.terminate()
        pool.shutdown(cancel_futures=True)


def _outcome(future: Future[Any]) -> Any:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        return "a worker process died (out of memory, or killed?), and with it all that was running"
    return str(error.__cause__ or error).strip().strip('"')  # the cause holds the worker's own traceback


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
