"""Replace training in worker processes, without torch, so that they start fast."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.run import Row, Run


@dataclass(frozen=True)
class Nothing:
    """Workload that is not trained, with an optional directory."""

    directory: str = ""


def row_of(run: Run, accuracy: float = 0.5) -> Row:
    curves = {"train_loss": [1.0, 0.1], "train_accuracy": [0.5, 0.9], "accuracy": [0.1, accuracy]}
    return Row(
        run=run,
        diverged=False,
        scores={name: values[-1] for name, values in curves.items()},
        curves=curves,
        measures={},
        violation=0.0,
        gradients=100,
        seconds_per_step=0.01,
        seconds=1.0,
        megabytes=100.0,
        device="cpu",
        torch_version="0",
    )


def runs(count: int, method: str = "fake", directory: str = "") -> list[Run]:
    return [Run(Nothing(directory), method, seed, lr=0.1, epochs=2) for seed in range(count)]  # type: ignore[arg-type]


def fake_train(run: Run, weights: Path | None = None) -> Row:
    return row_of(run, accuracy=run.seed / 10)


def fails_on_seed_1(run: Run, weights: Path | None = None) -> Row:
    if run.seed == 1:
        raise ArithmeticError("the loss is infinite")
    return fake_train(run)


def dies_on_seed_1(run: Run) -> Row:
    if run.seed == 1:
        os._exit(9)
    return fake_train(run)


def hangs_from_seed_2(run: Run) -> Row:
    """Write the process id to the directory of the workload, then never end."""
    if run.seed >= 2:
        Path(run.workload.directory, f"worker-{os.getpid()}").touch()
        time.sleep(600)
    return fake_train(run)


def fake_measured_train(run: Run, weights: Path | None = None) -> Row:
    """Return accuracies and curvature that depend on the run only."""
    number = int(run.key, 16) / 16**16
    names = ("gradient_norm", "trace", "trace_error", "top_eigenvalue", "sharpness", "distance")
    measures = {name: (i + 1) * (0.1 + number) for i, name in enumerate(names)} if "trace" in run.measures else {}
    return replace(row_of(run, accuracy=0.5 + number / 2), measures=measures)


def tells_its_data_directory(run: Run) -> Row:
    """Return the data directory as the device of the row."""
    from benchmarks.data.directory import data_directory  # imports torch

    return replace(row_of(run), device=str(data_directory()))


def dies_once_on_seed_1(run: Run) -> Row:
    """Kill the process the first time, as a file in the directory of the workload records."""
    if run.seed == 1:
        try:
            Path(run.workload.directory, "died").touch(exist_ok=False)
        except FileExistsError:
            return fake_train(run)
        os.kill(os.getpid(), signal.SIGKILL)
    return fake_train(run)
