"""Make networks of the population from random numbers, without training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.studies.population.design import Design, Member, members
from benchmarks.studies.population.measurement import LAYERS, STATISTICS, Checkpoint
from benchmarks.studies.population.tables import CURVATURES
from benchmarks.studies.population.training import Trajectory

Gap = Callable[[dict[str, list[float | None]], float], float]


def made_checkpoint(random: np.random.Generator, fraction: float, gap: Gap, levels: tuple[float, ...]) -> Checkpoint:
    margins: dict[str, list[float | None]] = {
        layer: list(random.normal(size=len(STATISTICS))) for layer in (*LAYERS, "constrained")
    }
    loss = random.uniform(0.1, 0.5)
    accuracy = 1 - loss / 2 + 0.01 * random.normal()
    scores = {"train_loss": loss, "train_accuracy": accuracy, "test_loss": 1.0}
    scores["test_accuracy"] = accuracy - gap(margins, loss) / 100
    others = ("norm", "distance", "log_path", "log_spectral", "loss_sum", "kv_input", "kv_last")
    names = (*others, "mixup_accuracy", "mixup_loss", "moved_accuracy", "moved_loss", "confidence")
    numbers: dict[str, float | None] = {name: random.uniform(1, 2) for name in names}
    # curvature that ranks by test error
    curvature: dict[str, float | None] = {name: 1 - scores["test_accuracy"] for name in CURVATURES}
    predictions = "".join(map(str, random.integers(0, 10, 20)))
    return Checkpoint(fraction, levels, scores, margins, numbers, curvature, predictions)


def population(gap: Gap, early: Gap | None = None, bases: int = 60) -> dict[Member, Trajectory]:
    """Make networks whose gaps are functions of their margins and loss, early in training by another function."""
    random = np.random.default_rng(0)
    found = {}
    for member in members(Design("mnist1d", bases=bases)):
        checkpoints = [made_checkpoint(random, 0.2, early or gap, (1.0,)), made_checkpoint(random, 1.0, gap, (0.3,))]
        found[member] = Trajectory(None, False, checkpoints, [], 1.0, 1.0, "cpu", "2")  # type: ignore[arg-type]
    return found


def by_margins(margins: dict[str, list[float | None]], loss: float) -> float:
    # the logarithm's median at the first block
    return 20 + 5 * (margins["first"][STATISTICS.index("log median")] or 0.0)


def without_margins(networks: dict[Member, Trajectory], count: int) -> None:
    """Make some networks, short ones among them, such whose outputs are constant: without margins and without a gap."""
    for trajectory in [t for m, t in networks.items() if m.axis in ("base", "length")][:count]:
        last = trajectory.checkpoints[-1]
        last.scores.update(train_loss=2.3, train_accuracy=0.1, test_accuracy=0.1)
        for numbers in last.margins.values():
            numbers[:] = [None] * len(numbers)
