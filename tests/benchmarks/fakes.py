"""Stand-ins for training, for worker processes to import: no torch here, so that they start at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.runs.configuration import Run
from benchmarks.runs.results import Row


def row_of(run: Run, accuracy: float = 0.5) -> Row:
    return Row(
        run=run,
        epochs=2,
        train_loss=[1.0, 0.1],
        train_accuracy=[0.5, 0.9],
        heldout_accuracy=[0.1, accuracy],
        final_train_accuracy=0.9,
        final_heldout_accuracy=accuracy,
        seconds_per_step=0.01,
        torch_version="0",
    )


def runs(count: int, method: str = "fake") -> list[Run]:
    return [Run(method, seed, lr=0.1) for seed in range(count)]


def fake_train(run: Run) -> Row:
    return row_of(run, accuracy=run.seed / 10)


def fails_on_seed_1(run: Run) -> Row:
    if run.seed == 1:
        raise ArithmeticError("the loss is infinite")
    return fake_train(run)


def dies_on_seed_1(run: Run) -> Row:
    if run.seed == 1:
        os._exit(9)
    return fake_train(run)


def hangs_from_seed_2(run: Run) -> Row:
    """Announces its process in the directory that ``run.dataset`` names, then never ends."""
    if run.seed >= 2:
        Path(run.dataset, f"worker-{os.getpid()}").touch()
        time.sleep(600)
    return fake_train(run)
