"""Effects of batch norm and shortcuts, from networks of equal seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.studies.norms_and_skips.design import VARIANTS, Factor, Variant
from benchmarks.studies.norms_and_skips.measurement import Checkpoint
from benchmarks.studies.norms_and_skips.training import Trajectory
from benchmarks.studies.population.rules import CHANCE

__all__ = [
    "LEVELS",
    "MEASURES",
    "Measure",
    "Networks",
    "at_chance",
    "at_end",
    "at_loss",
    "common",
    "effects",
    "matched",
    "nearest",
]

#: The networks of a depth.
Networks = Mapping[tuple[Variant, int], Trajectory]
#: Training losses at which networks may be compared.
LEVELS = tuple(k / 10 for k in range(1, 23))
#: Part of the seeds that have to reach it with all four variants.
ENOUGH = 0.75


@dataclass(frozen=True)
class Measure:
    """A number of a checkpoint.

    Attributes
    ----------
    label : str
        For tables and figures.
    of : callable
        Takes a checkpoint; returns the number, or None.
    log : bool
        Whether logarithms are compared; of what is not positive there is none.
    """

    label: str
    of: Callable[[Checkpoint], float | None]
    log: bool = True

    def value(self, checkpoint: Checkpoint) -> float | None:
        """Return the number, or its logarithm."""
        value = self.of(checkpoint)
        if value is None or not self.log:
            return value
        return math.log(value) if value > 0 else None


def _curvature(name: str) -> Callable[[Checkpoint], float | None]:
    return lambda checkpoint: checkpoint.curvature.get(name)


def _negative(checkpoint: Checkpoint) -> float | None:
    smallest, largest = checkpoint.curvature.get("smallest"), checkpoint.curvature.get("eigenvalue_1")
    return -smallest / largest if smallest is not None and largest else None


def _range(checkpoint: Checkpoint) -> float | None:
    losses = _finite(checkpoint.gradient.get("loss", []))
    return max(losses) - min(losses) if losses else None


def _change(checkpoint: Checkpoint) -> float | None:
    return max(_finite(checkpoint.gradient.get("change", [])), default=None)


def _smoothness(checkpoint: Checkpoint) -> float | None:
    pairs = zip(checkpoint.gradient.get("change", []), checkpoint.gradient.get("distance", []), strict=True)
    return max((change / far for change, far in pairs if change is not None and far), default=None)


def _finite(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _gap(checkpoint: Checkpoint) -> float:
    return 100 * (checkpoint.scores["train_accuracy"] - checkpoint.scores["test_accuracy"])


#: Curvature, then the loss along the gradient, then generalisation.
MEASURES: dict[str, Measure] = {
    "unit_trace": Measure("trace, filters in units of their norms", _curvature("unit_trace")),
    "trace": Measure("trace", _curvature("trace")),
    "eigenvalue_1": Measure("largest eigenvalue", _curvature("eigenvalue_1")),
    "eigenvalue_2": Measure("second eigenvalue", _curvature("eigenvalue_2")),
    "eigenvalue_3": Measure("third eigenvalue", _curvature("eigenvalue_3")),
    "negative": Measure("−smallest / largest eigenvalue", _negative),
    "range": Measure("range of the loss along the gradient", _range),
    "change": Measure("change of the gradient along its direction", _change),
    "smoothness": Measure("change of the gradient per unit of distance", _smoothness),
    "gap": Measure("gap in accuracy, points", _gap, log=False),
    "test_error": Measure("test error, %", lambda c: 100 - 100 * c.scores["test_accuracy"], log=False),
    "loss_gap": Measure("gap in loss", lambda c: c.scores["test_loss"] - c.scores["train_loss"], log=False),
}


def at_end(trajectory: Trajectory, measure: Measure) -> float | None:
    """Return what was measured after the last epoch."""
    return None if trajectory.diverged else measure.value(trajectory.checkpoints[-1])


def at_loss(trajectory: Trajectory, measure: Measure, level: float) -> float | None:
    """Interpolate between the checkpoints between which the training loss first falls below a level.

    Linear in the loss on all training data in evaluation mode, and of the logarithm where that is compared. None of a
    network that diverged, never reaches the level, or is below it after the first epoch. What was measured before the
    first step is left out: the running statistics of batch norm mean nothing then, and so neither does the loss.
    """
    if trajectory.diverged:
        return None
    known = [
        (checkpoint.scores["train_loss"], value)
        for checkpoint in trajectory.checkpoints
        if checkpoint.epoch and (value := measure.value(checkpoint)) is not None
    ]
    for (before, first), (after, second) in pairwise(known):
        if before >= level >= after and before > after:
            part = (before - level) / (before - after)
            return first + part * (second - first)
    return None


def _reached(networks: Networks) -> dict[float, int]:
    """Count the seeds that reach each of :data:`LEVELS` with all four variants."""
    gap = MEASURES["gap"]  # which is known at every checkpoint
    return {
        level: sum(
            all((v, s) in networks and at_loss(networks[v, s], gap, level) is not None for v in VARIANTS)
            for s in _seeds(networks)
        )
        for level in LEVELS
    }


def matched(networks: Networks) -> float | None:
    """Return the lowest of :data:`LEVELS` that at least three quarters of the seeds reach with all four variants."""
    needed = ENOUGH * len(_seeds(networks))
    return next((level for level, count in _reached(networks).items() if count >= needed > 0), None)


def nearest(networks: Networks) -> tuple[float, int]:
    """Return the lowest of :data:`LEVELS` that most seeds reach with all four variants, and how many these are."""
    return max(_reached(networks).items(), key=lambda found: (found[1], -found[0]))


def common(networks: Networks) -> str:
    """Say at which training loss most seeds meet, and how many are asked to."""
    (level, count), seeds = nearest(networks), len(_seeds(networks))
    asked = math.ceil(ENOUGH * seeds)
    return f"at most {count} of {seeds} seeds reach the same one ({level:g}) with all four, and {asked} are required"


def at_chance(networks: Networks) -> list[tuple[Variant, int]]:
    """List the networks whose training accuracy is that of guessing at the end."""
    return [key for key, t in networks.items() if t.checkpoints and t.checkpoints[-1].scores["train_accuracy"] < CHANCE]


def _seeds(networks: Networks) -> set[int]:
    return {seed for _, seed in networks}


def effects(networks: Networks, value: Callable[[Trajectory], float | None]) -> dict[Factor, list[float]]:
    """Return main effects and interaction, one number for each seed of which all four variants have a value.

    Parameters
    ----------
    networks : mapping
        By variant and seed.
    value : callable
        Takes a network.

    Returns
    -------
    dict of str to list of float
        ``"batch norm"``: with it minus without it, averaged over networks with and without shortcuts; ``"skips"`` the
        same the other way round; ``"interaction"``: what batch norm does where there are shortcuts minus what it does
        where there are none.
    """
    found: dict[Factor, list[float]] = {"batch norm": [], "skips": [], "interaction": []}
    for seed in sorted(_seeds(networks)):
        of_seed = [value(networks[v, seed]) if (v, seed) in networks else None for v in VARIANTS]
        known = [number for number in of_seed if number is not None]
        if len(known) < len(VARIANTS):
            continue
        both, norm, skip, neither = known
        found["batch norm"].append((both + norm - skip - neither) / 2)
        found["skips"].append((both + skip - norm - neither) / 2)
        found["interaction"].append(both - norm - skip + neither)
    return found
