"""Run a function in several processes of one group."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

# imported once for all processes of all tests; the last three take seconds, and torch imports them late
multiprocessing.set_forkserver_preload(
    ["pytest", "tests.distributed.problems", "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.checkpoint"]
)

#: Tests run one after another, and are skipped if torch is built without torch.distributed.
several_processes = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed"),
    pytest.mark.xdist_group("processes"),
]


def in_processes(count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call ``function(rank, *args)`` in each of ``count`` processes of a gloo group, and return what they return.

    Raises
    ------
    torch.multiprocessing.ProcessRaisedException
        If one of them raises; also if they wait for each other for a minute.
    """
    with tempfile.TemporaryDirectory() as directory:
        mp.start_processes(_run, args=(count, directory, function, args), nprocs=count, start_method="forkserver")
        return [torch.load(Path(directory) / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _run(rank: int, count: int, directory: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=count, timeout=timedelta(minutes=1)
    )
    try:
        torch.save(function(rank, *args), Path(directory) / f"{rank}.pt")
        torch.distributed.barrier()  # otherwise a process could end while others still connect
    finally:
        torch.distributed.destroy_process_group()
