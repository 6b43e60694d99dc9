"""Make trajectories of the study of batch norm and skips, without training."""

from __future__ import annotations

from benchmarks.run import Run
from benchmarks.studies.norms_and_skips.design import Design
from benchmarks.studies.norms_and_skips.measurement import Checkpoint
from benchmarks.studies.norms_and_skips.training import Trajectory

TINY = Design("mini", "fashion_mnist_mini", 256, (8,), width=1, stride=4, epochs=2, seeds=2, rates=(0.05,))


def made(run: Run, losses: tuple[float, ...] = (2.0, 1.0), traces: tuple[float, ...] = (10.0, 20.0), accuracy=0.5):
    checkpoints = [
        Checkpoint(
            epoch,
            {"train_loss": loss, "train_accuracy": accuracy + 0.1, "test_loss": 2.0, "test_accuracy": accuracy},
            {"unit_trace": value, "trace": value, "eigenvalue_1": value / 2, "smallest": -1.0},
            {"norm": [1.0], "loss": [loss, loss - 0.1], "change": [0.0, 0.5], "distance": [0.0, 0.25]},
            {"low": -1.0, "high": value, "density": [0.1, 1.0, 0.1]},
        )
        for epoch, (loss, value) in enumerate(zip(losses, traces, strict=True), start=1)
    ]
    plane = [[2.0, 1.5, None], [1.0, 0.5, 1.0], [2.0, 1.0, 3.0]] if run.seed == 0 else []
    return Trajectory(run, False, checkpoints, list(losses), plane, 3600.0, 1.0, "cpu", "2")
