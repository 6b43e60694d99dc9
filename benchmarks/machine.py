"""Choose the device, and control the threads and measure the memory of this process."""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["alone", "device", "device_name", "one_thread", "peak_megabytes"]

# torch has one random state and one number of threads per process: threads of one worker train one after another
_ONE_AT_A_TIME = threading.RLock()


def device() -> torch.device:
    """Choose the GPU if there is one, and the CPU otherwise."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Return the name of the GPU, or "cpu"."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


@contextmanager
def alone() -> Iterator[None]:
    """Keep other trainings out of this process meanwhile, and make this one independent of those before it."""
    # cuDNN would choose the algorithms that are fastest today, some of which add in any order; geoopt compiles its
    # stereographic functions while they run, and compiled ones round differently
    with (
        _ONE_AT_A_TIME,
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        torch.jit.optimized_execution(False),  # type: ignore[attr-defined]
        one_thread(),
    ):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread meanwhile."""
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
