"""Measure the processor time of a step of each variant, in steps without an ascent."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.machine import alone
from benchmarks.methods import METHODS
from benchmarks.run import Run
from benchmarks.runs.steps import gradient_closure, part_of, take_step
from benchmarks.runs.training import prepare
from benchmarks.studies.overhead.timing import interleaved, median_ratio

__all__ = ["STEPS", "Times", "Timing", "measure_times"]

#: Steps of a block, a multiple of every number of steps from one ascent to the next.
STEPS = 30
# so small that all steps start from nearly the same weights
_RATE = 1e-6


@dataclass(frozen=True)
class Timing:
    """Networks whose steps are timed in one process.

    Attributes
    ----------
    runs : tuple of Run
        The first is the one that the others are compared with.
    blocks : int
        Blocks of :data:`STEPS` steps of each network that are measured in turn, after one that is not.
    """

    runs: tuple[Run, ...]
    blocks: int

    @property
    def key(self) -> str:
        """Hash of the runs and of the number of blocks."""
        return hashlib.sha256(f"{[run.key for run in self.runs]} {self.blocks}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Times:
    """What was measured.

    Attributes
    ----------
    run : Timing
        The networks.
    ratios : list of float
        Processor time of a step in steps of the first network: medians over blocks that were measured in turn.
    milliseconds : float
        Processor time of a step of the first network.
    seconds : float
        Duration.
    """

    run: Timing
    ratios: list[float]
    milliseconds: float
    seconds: float


def measure_times(timing: Timing) -> Times:
    """Take steps of each network on its first batch, in turn, and measure their processor time.

    Processor time leaves out what other processes take, but not what they cost in caches and clock rate; that hits the
    blocks that are divided by each other alike.
    """
    began = time.perf_counter()
    with alone():
        parts = {str(i): _block(run) for i, run in enumerate(timing.runs)}
        times = interleaved(parts, timing.blocks, 1, "", clock=time.process_time)
    ratios = [round(median_ratio(times, name, "0").estimate, 4) for name in parts]
    base = 1000 * statistics.median(times["0"]) / STEPS
    return Times(timing, ratios, round(base, 4), round(time.perf_counter() - began, 2))


def _block(run: Run) -> Callable[[], None]:
    """Make a function that takes :data:`STEPS` steps."""
    run = replace(run, lr=_RATE)
    problem = prepare(run)
    method = METHODS[run.method]
    optimizer = method.build(problem.model, run)
    batch = next(iter(problem.batches(0)))
    make = partial(gradient_closure, problem.model, optimizer, loss=problem.loss)
    closures = [make(*batch), *([make(*part_of(batch, run.part))] if run.part < 1 else [])]
    problem.model.train()

    def block() -> None:
        for _ in range(STEPS):
            take_step(optimizer, *closures)

    return block
