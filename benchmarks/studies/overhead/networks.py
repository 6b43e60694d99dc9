"""Make the networks whose steps are timed."""

from __future__ import annotations

from typing import Any

from torch import nn

from benchmarks.methods import METHODS
from benchmarks.run import Run
from benchmarks.runs.training import prepare
from benchmarks.studies.images.contestants import CONTESTANTS
from benchmarks.workloads.images import Images
from benchmarks.workloads.problem import Batch

__all__ = ["BATCH", "RHO", "network"]

BATCH, RHO = 64, 0.05


def network(name: str, lr: float, batch: int = BATCH) -> tuple[nn.Module, Any, Batch]:
    """Make a network for a contestant of the comparison, with its optimizer and a batch."""
    contestant = CONTESTANTS[name]
    workload = Images(kernels=contestant.kernels)  # type: ignore[arg-type]
    run = Run(workload, contestant.method, 0, lr, 1, RHO, weight_decay=5e-4)
    problem = prepare(run)
    inputs, targets = problem.measured
    return problem.model, METHODS[run.method].build(problem.model, run), (inputs[:batch], targets[:batch])
