"""The machine that trains: its device, its threads and its memory."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["alone", "device", "device_name", "one_thread", "peak_megabytes"]

# torch's random state and number of threads are the process's: a worker with several threads trains in one at a time
_ONE_AT_A_TIME = threading.RLock()


def device() -> torch.device:
    """Choose a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Name that GPU, or "cpu"."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


@contextmanager
def alone() -> Iterator[None]:
    """Train nothing else in this process meanwhile, on one thread, and the same way whatever came before."""
    # cuDNN would choose its algorithms by trying which is fastest today, of which some add up in any order;
    # geoopt's stereographic functions are compiled while they run, and round otherwise once they are
    with (
        _ONE_AT_A_TIME,
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        torch.jit.optimized_execution(False),  # type: ignore[attr-defined]
        one_thread(),
    ):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def peak_megabytes() -> float:
    """Measure the most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
