"""Make comparisons on manifolds without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.run import Row, Run
from benchmarks.studies.comparison.cases import Case, Score
from benchmarks.studies.comparison.contest import Entry, compete
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.manifold_tasks.contestants import contestants
from benchmarks.workloads.spd import HandSigns

CONTESTANTS = contestants((0.1, 0.2), (0.1, 0.2), (0.01, 0.02, 0.03), (0.01, 0.02, 0.03))
NAMES = tuple(contestant.name for contestant in CONTESTANTS)
PROTOCOL = Protocol(first=(100,), kept=2, second=(101,), final=(0, 1, 2))
MEASURES = ("gradient_norm", "trace", "top_eigenvalue")
NOTE = "initial weights and order, but not the signals"
TEMPLATE = Run(HandSigns("stiefel", 4), "", 0, 0.0, 100, measures=MEASURES)
ONE = Case("one", "the one", TEMPLATE, CONTESTANTS, Score(worst=0.0), "both", NOTE)
OTHER = replace(
    ONE, name="other", label="the other", template=replace(TEMPLATE, workload=HandSigns("stiefel", 3)), tuned_with="one"
)
ERRORS = replace(
    ONE,
    name="errors",
    label="errors",
    template=replace(TEMPLATE, workload=HandSigns("stiefel", 5)),
    group="errors",
    score=Score("log_error", 1.0, 0.0, smaller=True),
)
CASES = (ONE, OTHER, ERRORS)


def made(run: Run, diverged: bool = False) -> Row:
    """Make a row of random numbers that depend on the run; validation scores are best at one setting."""
    rng = np.random.default_rng(int(run.key, 16))
    value = float(rng.uniform(0.4, 0.5))
    best = run.rho == 0.02 if run.method.startswith(("rsam", "projected")) else 0.5 in (run.momentum, run.beta)
    if run.heldout == "validation" and run.lr == 0.2 and best:
        value = 0.9 if run.workload != ERRORS.template.workload else 0.1
    return Row(
        run=run,
        diverged=diverged,
        scores={} if diverged else {"accuracy": value, "log_error": value},
        curves={"loss": [1.0]},
        measures={"gradient_norm": 2.0, "trace": 4.0 ** (run.seed % 2), "top_eigenvalue": -1.0},
        violation=0.1 * (run.seed % 10),
        gradients=10,
        seconds_per_step=0.002,
        seconds=1.0,
        megabytes=100.0,
        device="cpu",
        torch_version="0",
    )


def collect(runs: Sequence[Run]) -> list[Row]:
    return [made(run) for run in runs]


def entries_of(case: Case = ONE) -> list[Entry]:
    return compete(case, collect, PROTOCOL, ONE if case.tuned_with else case)
