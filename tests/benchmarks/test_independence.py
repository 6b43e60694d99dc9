"""That a row's accuracy is that of the saved weights, by a script that shares no code with the benchmarks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.data.fashion_mnist_mini import PATH
from benchmarks.run import Run
from benchmarks.runs.training import train
from benchmarks.workloads.images import Images
from tests.benchmarks.training_steps import on, run_of

RUN = Run(Images(label_noise=0.0), "sgd", 0, 0.05, 1, weight_decay=5e-4)
SCRIPT = Path(__file__).with_name("recompute_accuracy.py")


def test_that_the_accuracy_is_that_of_the_kept_weights(tmp_path) -> None:
    runs = [replace(run_of(method, RUN), seed=3) for method in ("sgd", "rsam_stiefel")]
    rows = [train(run, weights=tmp_path) for run in runs]
    command = [sys.executable, str(SCRIPT), str(PATH), *(str(tmp_path / f"{run.key}.pt") for run in runs)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    for row, accuracy in zip(rows, printed.split(), strict=True):
        # in double precision the class of one image may differ
        assert float(accuracy) == pytest.approx(row.scores["accuracy"], abs=1 / 2000)
        assert row.scores["accuracy"] > 0.5


def test_that_weights_of_tuning_runs_are_not_kept(tmp_path) -> None:
    train(replace(on(RUN, batch_size=500), heldout="validation"), weights=tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
