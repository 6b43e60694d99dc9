"""Training a network of the study, and measuring it on the way."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.machine import alone, device_name
from benchmarks.methods import METHODS
from benchmarks.run import Run
from benchmarks.runs.steps import Tally
from benchmarks.runs.training import prepare, train_epoch
from benchmarks.studies.norms_and_skips.measurement import CURVATURE, Checkpoint, landscape, measure
from benchmarks.workloads.residual import as_residual

__all__ = ["DRAWN", "Trajectory", "follow", "measured_after"]

#: The seed whose networks' landscapes are drawn.
DRAWN = 0


@dataclass(frozen=True)
class Trajectory:
    """What is known about a network of the study.

    Attributes
    ----------
    run : Run
        Its configuration.
    diverged : bool
        Whether training ended early, at a loss or a gradient that was not finite.
    checkpoints : list of Checkpoint
        By epoch; of a network that a learning rate was chosen by the last alone.
    losses : list of float
        Mean loss of the batches of each epoch as they were trained on.
    plane : list of list of float
        The landscape around the last weights, of seed :data:`DRAWN`; else empty.
    seconds, seconds_measuring : float
        Of the processor, in all and for measurements alone.
    device, torch_version : str
        Where, and by what.
    """

    run: Run
    diverged: bool
    checkpoints: list[Checkpoint]
    losses: list[float]
    plane: list[list[float | None]]
    seconds: float
    seconds_measuring: float
    device: str
    torch_version: str

    def __post_init__(self) -> None:
        rows = [Checkpoint(**c) if isinstance(c, dict) else c for c in self.checkpoints]
        object.__setattr__(self, "checkpoints", rows)


def measured_after(epochs: int) -> dict[int, bool]:
    """Say after which epochs a network is measured, and whether the density of eigenvalues is: early ones closely."""
    doubling = [2**k for k in range(epochs.bit_length()) if 2**k <= 0.75 * epochs]
    spectra = (0, doubling[len(doubling) // 2] if doubling else 0, epochs)
    return {epoch: epoch in spectra for epoch in (0, *doubling, epochs)}


def follow(run: Run) -> Trajectory:
    """Train a network and measure it on the way, on one thread or on a GPU.

    Parameters
    ----------
    run : Run
        On a workload :class:`~benchmarks.workloads.residual.Residual`.

    Returns
    -------
    Trajectory
        Its results.
    """
    began = time.process_time()
    with alone():
        training = _Training(run)
        diverged = not training.run_all()
        plane = training.plane() if run.seed == DRAWN and run.heldout == "test" and not diverged else []
    return Trajectory(
        run=run,
        diverged=diverged,
        checkpoints=training.checkpoints,
        losses=training.losses,
        plane=plane,
        seconds=round(time.process_time() - began, 2),
        seconds_measuring=round(training.seconds, 2),
        device=device_name(),
        torch_version=torch.__version__,
    )


class _Training:
    """One training."""

    def __init__(self, run: Run) -> None:
        self.run, self.problem = run, prepare(run)
        self.data = as_residual(run.workload).data(run.heldout)
        self.model: nn.Module = self.problem.model
        method = METHODS[run.method]
        self.optimizer, self.objective = method.build(self.model, run), method.objective(self.model, run)
        self.when = measured_after(run.epochs) if run.heldout == "test" else {run.epochs: False}
        self.checkpoints: list[Checkpoint] = []
        self.losses: list[float] = []
        self.seconds = 0.0

    def run_all(self) -> bool:
        """Train; return False if training ended early."""
        self._look(0)
        for epoch in range(self.run.epochs):
            loss = train_epoch(epoch, self.run, self.problem, self.optimizer, self.objective, Tally())
            if loss is None:
                return False
            self.losses.append(float(f"{loss:.5g}"))
            self._look(epoch + 1)
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())

    def plane(self) -> list[list[float | None]]:
        """Return the landscape around the present weights."""
        began = time.process_time()
        batch = self.data.train_images[:CURVATURE], self.data.train_labels[:CURVATURE]
        found = landscape(self.model, batch, self.run.seed)
        self.seconds += time.process_time() - began
        return found

    def _look(self, epoch: int) -> None:
        """Measure the network if it is time to."""
        if epoch not in self.when:
            return
        began = time.process_time()
        self.checkpoints.append(measure(self.model, self.data, epoch, self.run.lr, spectrum=self.when[epoch]))
        self.seconds += time.process_time() - began
