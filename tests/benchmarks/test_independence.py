"""That a row's accuracy is that of the weights that were kept, by a script that shares no code with the benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.data.fashion_mnist_mini import PATH
from benchmarks.runs.configuration import Run
from benchmarks.runs.training import train

SCRIPT = Path(__file__).with_name("recompute_accuracy.py")


@pytest.mark.parametrize("method", ["sgd", "rsam_stiefel"])
def test_that_the_accuracy_is_that_of_the_kept_weights(method, tmp_path) -> None:
    run = Run(method, seed=3, lr=0.05, rho=0.1 * method.startswith("rsam"), epochs=1, label_noise=0.0)
    row = train(run, weights=tmp_path)
    command = [sys.executable, str(SCRIPT), str(PATH), str(tmp_path / f"{run.key}.pt")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    # in double precision one image may fall to the other side
    assert float(printed) == pytest.approx(row.final_heldout_accuracy, abs=1 / 2000)
    assert row.final_heldout_accuracy > 0.5


def test_that_weights_of_tuning_runs_are_not_kept(tmp_path) -> None:
    train(Run("sgd", 0, lr=0.05, epochs=1, batch_size=500, heldout="validation"), weights=tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
