"""Make rows and entries of a comparison from numbers, without training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from benchmarks.methods import METHODS
from benchmarks.run import Row, Run
from benchmarks.runs.measurement import CURVES
from benchmarks.studies.comparison.cases import Case, Contestant
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.comparison.tuning import Tuned
from benchmarks.studies.images import cases
from benchmarks.studies.images.contestants import CONTESTANTS
from benchmarks.workloads.images import Images

STEPS = 10
"""Steps of an epoch."""


def made_row(
    run: Run,
    accuracy: float = 0.5,
    train: float = 0.9,
    measures: Mapping[str, float] | None = None,
    diverged: bool = False,
    **others: object,
) -> Row:
    """Make a row with as many epochs as its run has, whose curves end at the given values."""
    epochs = 1 if diverged else run.epochs
    losses = [math.nan if diverged else 1 / (i + 1) for i in range(epochs)]
    curves = {"train_loss": losses, "train_accuracy": [train] * epochs, "accuracy": [accuracy] * epochs}
    row = {
        "run": run,
        "diverged": diverged,
        "scores": {name: values[-1] for name, values in curves.items()},
        "curves": curves if CURVES in run.measures else {},
        "measures": {} if diverged or measures is None else dict(measures),
        "violation": 0.0,
        "gradients": epochs * STEPS * METHODS[run.method].gradients,
        "seconds_per_step": 0.01,
        "seconds": 1.0,
        "megabytes": 100.0,
        "device": "cpu",
        "torch_version": "0",
        **others,
    }
    return Row(**row)  # type: ignore[arg-type]


def made_case(
    methods: Sequence[str] = ("sgd", "sam"),
    name: str = "made",
    *,
    equal_gradients: bool = False,
    main: bool = True,
    **workload: object,
) -> Case:
    """Make a case of four epochs on the digits, by default without contestants at equal gradients."""
    images = Images(**{"dataset": "digits", **workload})  # type: ignore[arg-type]
    return cases.make_case(
        name, f"made up, {name}", images, 4, methods=methods, equal_gradients=equal_gradients, main=main
    )


def made_entry(
    case: Case,
    contestant: str | Contestant,
    accuracies: Sequence[float],
    measures: Mapping[str, Sequence[float]] | None = None,
    train: Sequence[float] | None = None,
    diverged: Sequence[int] = (),
    grid: Sequence[tuple[float, float]] = ((0.01, 0.1), (0.03, 0.1), (0.1, 0.1)),
    chosen: int = 1,
) -> Entry:
    """Make an entry of seeds 0, 1, ... from their test accuracies (in [0, 1]), train accuracies and curvatures.

    Seeds in ``diverged`` have no curvature.
    """
    who = CONTESTANTS[contestant] if isinstance(contestant, str) else contestant
    settings = [case.run(who, lr, knob) for lr, knob in grid]
    scores = {setting: 0.5 + 0.1 * (i == chosen) for i, setting in enumerate(settings)}
    rows = [
        made_row(
            replace(settings[chosen], seed=seed),
            accuracy,
            0.9 if train is None else train[seed],
            {name: values[seed] for name, values in (measures or {}).items()},
            seed in diverged,
        )
        for seed, accuracy in enumerate(accuracies)
    ]
    return Entry(case, who, Tuned(settings[chosen], 0.6, scores, tuple(settings)), rows)


class Recorder:
    """Replacement of ``collect`` that makes rows by a function of the run, and keeps each list of runs."""

    def __init__(self, row: Callable[[Run], Row] = made_row) -> None:
        self.calls: list[list[Run]] = []
        self._row = row

    def __call__(self, runs: Sequence[Run]) -> list[Row]:
        self.calls.append(list(runs))
        return [self._row(run) for run in runs]

    @property
    def runs(self) -> list[Run]:
        """All runs that were collected."""
        return [run for call in self.calls for run in call]
