"""Comparisons on tasks without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.runs.tuning import Protocol
from benchmarks.studies.tasks.cases import Case, Grid
from benchmarks.studies.tasks.protocol import Entry, compete
from benchmarks.tasks.trial import Outcome, Trial

GRID = Grid((0.1, 0.2), (0.1, 0.2), (0.01, 0.02, 0.03), (0.01, 0.02, 0.03))
PROTOCOL = Protocol(first=(100,), kept=2, second=(101,), final=(0, 1, 2))
ONE = Case("one", "the one", Trial("emg", "", 0, 0.0, 0.0, manifold="stiefel", curvature=True), GRID, "both")
OTHER = replace(ONE, name="other", label="the other", template=replace(ONE.template, size=3), tuned_with="one")
ERRORS = replace(
    ONE,
    name="errors",
    label="errors",
    template=replace(ONE.template, size=4),
    group="errors",
    score="log_error",
    unit=1.0,
    worst=0.0,
    smaller=True,
)
CASES = (ONE, OTHER, ERRORS)


def made(trial: Trial, diverged: bool = False) -> Outcome:
    """An outcome without training: random numbers of the trial, on validation data best at one setting."""
    rng = np.random.default_rng(int(trial.key, 16))
    value = float(rng.uniform(0.4, 0.5))
    if trial.heldout == "validation" and trial.lr == 0.2 and trial.knob in (0.02, 0.5):
        value = 0.9 if trial.size != 4 else 0.1
    return Outcome(
        run=trial,
        diverged=diverged,
        scores={} if diverged else {"accuracy": value, "log_error": value},
        train_loss=[1.0],
        curvature={"gradient_norm": 2.0, "trace": 4.0 ** (trial.seed % 2), "top_eigenvalue": -1.0},
        violation=0.1 * (trial.seed % 10),
        gradients=10,
        seconds_per_step=0.002,
        seconds=1.0,
        megabytes=100.0,
        device="cpu",
        torch_version="0",
    )


def collect(trials: Sequence[Trial]) -> list[Outcome]:
    return [made(trial) for trial in trials]


def entries_of(case: Case = ONE) -> list[Entry]:
    return compete(case, ONE if case.tuned_with else case, collect, PROTOCOL)
