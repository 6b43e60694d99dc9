"""Rows and entries of a comparison, made of numbers instead of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from benchmarks.methods import METHODS
from benchmarks.runs.configuration import Run
from benchmarks.runs.results import Row
from benchmarks.runs.tuning import Tuned
from benchmarks.studies.optimizers.cases import Case, Contestant
from benchmarks.studies.optimizers.protocol import Entry

STEPS = 10
"""Steps of an epoch."""


def made_row(
    run: Run,
    accuracy: float = 0.5,
    train: float = 0.9,
    curvature: Mapping[str, float] | None = None,
    diverged: bool = False,
    **others: object,
) -> Row:
    """A row of as many epochs as its run asks for, whose curves end where they are told to."""
    epochs = 1 if diverged else run.epochs
    points = epochs if run.curves else 1
    row = {
        "run": run,
        "epochs": epochs,
        "diverged": diverged,
        "train_loss": [math.nan if diverged else 1 / (i + 1) for i in range(points)],
        "train_accuracy": [train] * points,
        "heldout_accuracy": [accuracy] * points,
        "final_train_loss": math.nan if diverged else 1 / points,
        "final_train_accuracy": train,
        "final_heldout_accuracy": accuracy,
        "curvature": {} if diverged or curvature is None else dict(curvature),
        "gradients": epochs * STEPS * METHODS[run.method].gradients,
        "seconds_per_step": 0.01,
        "seconds": 1.0,
        "device": "cpu",
        "torch_version": "0",
        **others,
    }
    return Row(**row)  # type: ignore[arg-type]


def made_case(methods: Sequence[str] = ("sgd", "sam"), name: str = "made", **options: object) -> Case:
    """A case of four epochs without contestants at equal gradients, unless told otherwise."""
    template = {"dataset": "digits", "epochs": 4, "curvature": True, **options.pop("template", {})}  # type: ignore[dict-item]
    options = {"equal_gradients": False, **options}
    return Case(name, f"made up, {name}", Run("", 0, 0.0, **template), tuple(methods), **options)  # type: ignore[arg-type]


def made_entry(
    case: Case,
    method: str,
    accuracies: Sequence[float],
    curvature: Mapping[str, Sequence[float]] | None = None,
    train: Sequence[float] | None = None,
    diverged: Sequence[int] = (),
    epochs: int | None = None,
    grid: Sequence[tuple[float, float]] = ((0.01, 0.1), (0.03, 0.1), (0.1, 0.1)),
    chosen: int = 1,
) -> Entry:
    """An entry of seeds 0, 1, ... from the test accuracy (of 1), train accuracy and curvature of each.

    Seeds in ``diverged`` have no curvature.
    """
    contestant = Contestant(case, method, case.template.epochs if epochs is None else epochs)
    settings = [contestant.run(lr, knob) for lr, knob in grid]
    scores = {setting: 0.5 + 0.1 * (i == chosen) for i, setting in enumerate(settings)}
    rows = [
        made_row(
            replace(settings[chosen], seed=seed),
            accuracy,
            0.9 if train is None else train[seed],
            {name: values[seed] for name, values in (curvature or {}).items()},
            seed in diverged,
        )
        for seed, accuracy in enumerate(accuracies)
    ]
    return Entry(contestant, Tuned(settings[chosen], 0.6, scores, tuple(settings)), rows)


class Recorder:
    """Stands for ``collect``: makes rows by a function of the run, and keeps each list of runs that it was given."""

    def __init__(self, row: Callable[[Run], Row] = made_row) -> None:
        self.calls: list[list[Run]] = []
        self._row = row

    def __call__(self, runs: Sequence[Run]) -> list[Row]:
        self.calls.append(list(runs))
        return [self._row(run) for run in runs]

    @property
    def runs(self) -> list[Run]:
        """All runs that were asked for."""
        return [run for call in self.calls for run in call]
