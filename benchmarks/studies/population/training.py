"""Training a network of the population, and measuring it on the way."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.machine import alone, device_name
from benchmarks.methods import METHODS
from benchmarks.run import Run
from benchmarks.runs.steps import gradient_closure, take_step
from benchmarks.runs.training import prepare
from benchmarks.studies.population.measurement import Checkpoint, Followed, measure
from benchmarks.workloads.chains import Chains

__all__ = ["FRACTIONS", "LEVELS", "Trajectory", "follow"]

#: Training losses at which networks are compared, and parts of the training.
LEVELS = (1.0, 0.3, 0.1, 0.03, 0.01)
FRACTIONS = tuple(k / 10 for k in range(1, 11))
#: Of these, where predictions are kept.
PREDICTED = (0.2, 0.5, 1.0)
#: How often in an epoch it is looked whether a level is reached.
LOOKS = 2


@dataclass(frozen=True)
class Trajectory:
    """What is known about a network of the population.

    Attributes
    ----------
    run : Run
        Its configuration.
    diverged : bool
        Whether training ended early, at a loss or a gradient that was not finite.
    checkpoints : list of Checkpoint
        In order: at :data:`FRACTIONS`, and where the training loss fell below one of :data:`LEVELS`.
    losses : list of float
        Mean loss of the batches of each epoch as they were trained on.
    seconds, seconds_measuring : float
        Of the processor, in all and for measurements alone.
    device, torch_version : str
        Where, and by what.
    """

    run: Run
    diverged: bool
    checkpoints: list[Checkpoint]
    losses: list[float]
    seconds: float
    seconds_measuring: float
    device: str
    torch_version: str

    def __post_init__(self) -> None:
        rows = [Checkpoint(**c) if isinstance(c, dict) else c for c in self.checkpoints]
        object.__setattr__(self, "checkpoints", rows)


def follow(run: Run) -> Trajectory:
    """Train a network and measure it on the way, on one thread or on a GPU.

    Parameters
    ----------
    run : Run
        On a workload :class:`~benchmarks.workloads.chains.Chains`.

    Returns
    -------
    Trajectory
        Its results.
    """
    began = time.process_time()
    with alone():
        training = _Training(run)
        diverged = not training.run_all()
    return Trajectory(
        run=run,
        diverged=diverged,
        checkpoints=training.checkpoints,
        losses=training.losses,
        seconds=round(time.process_time() - began, 2),
        seconds_measuring=round(training.seconds, 2),
        device=device_name(),
        torch_version=torch.__version__,
    )


class _Training:
    """One training."""

    def __init__(self, run: Run) -> None:
        assert isinstance(run.workload, Chains)
        self.run, self.problem = run, prepare(run)
        self.model = self.problem.model
        self.followed = Followed(run.workload, self.model, [p.detach().clone() for p in self.model.parameters()])
        method = METHODS[run.method]
        self.optimizer, self.objective = method.build(self.model, run), method.objective(self.model, run)
        self.steps = run.epochs * self.problem.steps
        self.levels = list(LEVELS)
        self.checkpoints: list[Checkpoint] = []
        self.losses: list[float] = []
        self.loss_sum = self.seconds = 0.0

    def run_all(self) -> bool:
        """Train; return False if training ended early."""
        tenths = {math.ceil(self.steps * k / 10): k / 10 for k in range(1, 11)}
        interval = max(1, self.problem.steps // LOOKS)
        for done, loss in enumerate(self._steps(), start=1):
            if loss is None:
                return False
            self.loss_sum += loss
            if done in tenths or done % interval == 0:
                self._look(tenths.get(done, done / self.steps), done in tenths)
        return all(bool(torch.isfinite(p).all()) for p in self.model.parameters())

    def _steps(self) -> Iterator[float | None]:
        """Take one step after the other, and yield their losses."""
        done = 0
        for epoch in range(self.run.epochs):
            losses: list[float] = []
            for batch in self.problem.batches(epoch):
                self.model.train()
                for group in self.optimizer.param_groups:
                    group["lr"] = self.run.lr * self.problem.schedule(done / self.steps)
                closure = gradient_closure(self.model, self.optimizer, *batch, self.objective, self.problem.loss)
                loss = take_step(self.optimizer, closure)
                if loss is not None:
                    losses.append(loss)
                done += 1
                if done % self.problem.steps == 0 and losses:
                    self.losses.append(float(f"{statistics.fmean(losses):.5g}"))
                yield loss

    def _look(self, fraction: float, is_tenth: bool) -> None:
        """Measure the network if it is time to, or if its loss has fallen below a level."""
        began = time.process_time()
        loss = self.followed.loss()
        reached = [level for level in self.levels if loss <= level]
        self.levels = [level for level in self.levels if level not in reached]
        if is_tenth or reached:
            sums = {"loss_sum": self.loss_sum, "level_loss": loss}
            curvature, predict = bool(reached) or fraction == 1, is_tenth and fraction in PREDICTED
            self.checkpoints.append(
                measure(self.followed, fraction, reached, sums, curvature=curvature, predict=predict)
            )
        self.seconds += time.process_time() - began
