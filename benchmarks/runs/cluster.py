"""Distribute runs over the workers of a Dask cluster, on one machine or many."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from typing import Any

from benchmarks.runs.results import C, R

__all__ = ["ClusterError", "outcomes"]

SECONDS = 20


class ClusterError(Exception):
    """The cluster cannot be started or reached; the message says why, and what to do."""


def outcomes(runs: Sequence[C], train: Callable[[C], R], jobs: int, scheduler: str) -> Generator[tuple[C, R | str]]:
    """Yield each run with its row or its error, in the order in which they end.

    If a worker dies, its runs go to others, as often as the scheduler's ``allowed-failures`` says (3 times); new
    workers may join at any time. Workers need this package on their path, and the data in the directory that this
    process reads (see :mod:`benchmarks.data.directory`) or permission to download them; they find a GPU by themselves.

    Parameters
    ----------
    runs, train
        As for :func:`benchmarks.runs.parallel.collect`.
    jobs : int
        Number of workers of a local cluster, with one thread each.
    scheduler : str
        Address, such as ``tcp://host:8786``, or ``"local"``.

    Raises
    ------
    ClusterError
        If the package ``distributed`` is not installed, or nothing answers at the address.
    """
    from benchmarks.data.directory import DIRECTORY, DOWNLOAD  # imports torch, without which other commands start fast

    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise ClusterError("--scheduler needs Dask: `pip install distributed`") from error
    environment = {name: os.environ[name] for name in (DIRECTORY, DOWNLOAD) if name in os.environ}
    cluster = None
    flying: dict[Any, C] = {}
    if scheduler == "local":
        cluster = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
    try:
        client = Client(cluster or scheduler, timeout=SECONDS)
    except (OSError, ValueError) as error:
        if cluster is not None:
            cluster.close()
        raise ClusterError(
            f"no Dask scheduler answers at {scheduler!r} ({error}); start one with `dask scheduler`, and workers with "
            "`dask worker ADDRESS --nthreads 1` in a directory where `import benchmarks` works"
        ) from error
    try:
        # not pure: Dask would look up the value of a call by a hash of its arguments
        flying |= {client.submit(_elsewhere, train, run, environment, pure=False): run for run in runs}
        if not client.scheduler_info()["workers"]:
            print(f"{scheduler} has no workers yet; they are waited for", file=sys.stderr)
        suspects = []
        for future in as_completed(list(flying)):
            run = flying.pop(future)
            if _killed(future):
                suspects.append(run)
            else:
                yield run, _outcome(future)
            future.release()  # so that the scheduler does not keep the result
        # a run may have failed because another one killed its worker: run alone, each fails or succeeds by itself
        for run in suspects:
            yield run, _outcome(client.submit(_elsewhere, train, run, environment, pure=False))
    finally:
        if flying and client.status == "running":  # interrupted: the results are not needed any more
            client.cancel(list(flying), force=True)
        client.close()
        if cluster is not None:
            cluster.close()


def _elsewhere(train: Callable[[C], R], run: C, environment: dict[str, str]) -> R:
    """Train in a process that this one did not start, with the data options of this command line."""
    os.environ.update(environment)
    return train(run)


def _killed(future: Any) -> bool:
    return future.status == "error" and type(future.exception()).__name__ == "KilledWorker"


def _outcome(future: Any) -> Any:
    if future.status == "cancelled":
        return "the scheduler forgot it"
    error = future.exception()  # waits for the end
    if error is None:
        return future.result()
    if _killed(future):
        return f"its workers died again and again (out of memory, or killed?): {error}"
    return "".join(traceback.format_exception(type(error), error, future.traceback())).strip()
