"""The numbers that claims C1 to C4 are about."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from benchmarks.report.intervals import Interval
from benchmarks.studies.population.design import Member
from benchmarks.studies.population.features import Point, at_matched_level, matrix
from benchmarks.studies.population.prediction import (
    Networks,
    adjusted_r2,
    bootstrap,
    bootstrap_all,
    held_out_error,
    k_fold,
    k_fold_r2,
    predictions,
    transfer,
)
from benchmarks.studies.population.ranks import Correlation, correlate
from benchmarks.studies.population.rules import OUTCOME, PRIMARY

__all__ = [
    "Carried",
    "Predicted",
    "carried_further",
    "carried_over",
    "curvature_and_outcome",
    "early_and_late",
    "early_share",
    "given_the_loss",
    "loss_alone",
    "partial_r2",
    "predicted",
    "predictions_carried_over",
    "primary",
    "usable",
]

#: Of the bootstrap.
SAMPLES = 200


@dataclass(frozen=True)
class Predicted:
    """How well a set of features predicts the gap.

    Attributes
    ----------
    networks, features : int
        How many there are.
    adjusted, held_out : Interval
        Adjusted R², and R² of predictions for base configurations that were left out.
    correlation : Interval
        Of these predictions with the truth.
    """

    networks: int
    features: int
    adjusted: Interval
    held_out: Interval
    correlation: Interval


@dataclass(frozen=True)
class Carried:
    """How well a model fitted to some networks predicts others.

    Attributes
    ----------
    fitted, others : int
        How many there are.
    r2 : Interval
        On the others.
    error : Interval
        Root of the mean squared error, in points.
    bias : Interval
        Mean of predicted minus true gap, in points.
    """

    fitted: int
    others: int
    r2: Interval
    error: Interval
    bias: Interval


def usable(points: Sequence[Point], *names: str) -> list[Point]:
    """Choose the networks that have all features of the sets."""
    if not points:
        return []
    known = np.isfinite(matrix(points, *names)).all(1)
    return [point for point, is_known in zip(points, known, strict=True) if is_known]


def _networks(points: Sequence[Point], names: Sequence[str], within: bool = False, outcome: str = "gap") -> Networks:
    x, y = matrix(points, *names), np.array([point.outcome(outcome) for point in points])
    bases = [point.member.base for point in points]
    if not within:
        return Networks(x, y, bases)
    kinds = [tuple(point.member.hyperparameters[a] for a in ("width", "depth", "batch_norm")) for point in points]
    columns = _without_means(np.column_stack((x, y)), kinds)
    return Networks(columns[:, :-1], columns[:, -1], bases, len(set(kinds)))


def _without_means(columns: np.ndarray, kinds: Sequence[Hashable]) -> np.ndarray:
    """Subtract from each column its mean over the rows of the same kind."""
    columns = columns.copy()
    for kind in set(kinds):
        rows = [i for i, other in enumerate(kinds) if other == kind]
        columns[rows] -= columns[rows].mean(0)
    return columns


# -- C1 and C2 -------------------------------------------------------------------------------------------------------


def predicted(points: Sequence[Point], *names: str, within: bool = False, outcome: str = "gap") -> Predicted | None:
    """Predict an outcome from sets of features; None where there are too few networks for that.

    Parameters
    ----------
    points : sequence of Point
        Those without the features are left out.
    names : str
        Keys of :data:`~benchmarks.studies.population.features.FEATURES`.
    within : bool
        Compare networks of the same architecture only, by subtracting its means.
    outcome : {"gap", "test_error"}
        What is predicted.
    """
    kept = usable(points, *names)
    if len({p.member.base for p in kept}) < 3:
        return None
    networks = _networks(kept, names, within, outcome)
    if len(kept) < networks.features + networks.means + 9 or np.ptp(networks.y) == 0:
        return None
    count = len(networks.names)
    return Predicted(
        len(kept),
        networks.features,
        bootstrap(adjusted_r2(networks), count, SAMPLES),
        *bootstrap_all(k_fold(networks), count, SAMPLES),
    )


def partial_r2(
    points: Sequence[Point], names: Sequence[str], baseline: Sequence[str], outcome: str = "gap"
) -> Interval | None:
    """Return the part of a baseline's squared error, of left-out base configurations, that more features take away."""
    kept = usable(points, *names, *baseline)
    if len({p.member.base for p in kept}) < 3:
        return None
    less = _networks(kept, baseline, outcome=outcome)
    more = _networks(kept, [*baseline, *names], outcome=outcome)
    if len(kept) < more.features + 10:
        return None
    error, reduced = held_out_error(less), held_out_error(more)
    return bootstrap(lambda weights: 1 - reduced(weights) / error(weights), len(less.names), SAMPLES)


def early_share(early: Sequence[Point], late: Sequence[Point], *names: str) -> Interval | None:
    """Return k-fold R² early in training as a part of that at its end, if that is above 0, over the same networks."""
    parts = _at_both(early, late, names)
    if parts is None:
        return None
    first, last = map(k_fold_r2, parts)
    count = len(parts[0].names)
    if not last(np.ones((1, count)))[0] > 0:
        return Interval(math.nan, math.nan)
    return bootstrap(lambda weights: first(weights) / last(weights), count, SAMPLES)


def early_and_late(early: Sequence[Point], late: Sequence[Point], *names: str) -> tuple[float, float] | None:
    """Return the two R² whose quotient :func:`early_share` is."""
    parts = _at_both(early, late, names)
    if parts is None:
        return None
    first, last = (float(k_fold_r2(part)(np.ones((1, len(part.names))))[0]) for part in parts)
    return first, last


def _at_both(early: Sequence[Point], late: Sequence[Point], names: Sequence[str]) -> list[Networks] | None:
    """Lay out the networks that have features at both times, at each; None if there are too few."""
    both = {p.member for p in usable(early, *names)} & {p.member for p in usable(late, *names)}
    if len({m.base for m in both}) < 3:
        return None
    return [_networks([p for p in points if p.member in both], names) for points in (early, late)]


# -- C3 --------------------------------------------------------------------------------------------------------------


def carried_over(
    fitted: Sequence[Point], others: Sequence[Point], *names: str, leave_out: bool = True
) -> Carried | None:
    """Predict the gaps of other networks by a model that saw nothing of their base configuration, or by one for all."""
    parts = _both(fitted, others, names)
    if parts is None:
        return None
    first, second = parts
    statistics = transfer(first, second, leave_out=leave_out)
    return Carried(len(first.y), len(second.y), *bootstrap_all(statistics, len(first.names), SAMPLES))


def carried_further(
    fitted: Sequence[Point],
    others: Sequence[Point],
    names: Sequence[str],
    baseline: Sequence[str],
    leave_out: bool = True,
) -> Interval | None:
    """Return how much larger R² on other networks is than with a baseline's features; see :func:`carried_over`."""
    fitted, others = (usable(points, *names, *baseline) for points in (fitted, others))
    found, alone = (_both(fitted, others, features) for features in (names, baseline))
    if found is None or alone is None:
        return None
    more, less = (transfer(*both, leave_out=leave_out) for both in (found, alone))
    return bootstrap(lambda weights: more(weights)[0] - less(weights)[0], len(found[0].names), SAMPLES)


def predictions_carried_over(
    fitted: Sequence[Point], others: Sequence[Point], *names: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the gaps of other networks, and what models that saw nothing of their base configuration say of them."""
    parts = _both(fitted, others, names)
    return (parts[1].y, predictions(*parts)) if parts else None


def _both(fitted: Sequence[Point], others: Sequence[Point], names: Sequence[str]) -> tuple[Networks, Networks] | None:
    """Lay out both, of the base configurations that have some of each; None if these are too few."""
    first, second = usable(fitted, *names), usable(others, *names)
    bases = {p.member.base for p in first} & {p.member.base for p in second}
    if len(bases) < 3:
        return None
    first, second = ([p for p in points if p.member.base in bases] for points in (first, second))
    x = np.concatenate([matrix(points, *names) for points in (first, second)])  # ranks are those of each on its own
    both = [*first, *second]
    whole = Networks(x, np.array([p.gap for p in both]), [p.member.base for p in both])
    chosen = np.arange(len(whole.y)) < len(first)
    return whole.part(chosen), whole.part(~chosen)


# -- C4 --------------------------------------------------------------------------------------------------------------


def curvature_and_outcome(points: Sequence[Point], measure: str, outcome: str = OUTCOME) -> Correlation | None:
    """Correlate a measure of curvature with an outcome within axes."""
    return correlate(
        points, lambda point: point.checkpoint.curvature.get(measure), lambda point: point.outcome(outcome)
    )


def given_the_loss(points: Sequence[Point], measure: str, outcome: str = OUTCOME) -> Correlation | None:
    """Correlate a measure with an outcome, each less what the training loss says of it.

    Networks are met where their loss has just fallen below a level, some further below than others. Ranks of measure
    and outcome among the networks are regressed on ranks of the loss, and what is left of them is correlated.
    """
    known = [point for point in points if point.checkpoint.curvature.get(measure) is not None]
    if len(known) < 3:
        return None
    measures = _less_the_loss(known, [float(point.checkpoint.curvature[measure] or 0) for point in known])
    outcomes = _less_the_loss(known, [point.outcome(outcome) for point in known])
    return correlate(known, lambda point: measures[point.member], lambda point: outcomes[point.member])


def _less_the_loss(points: Sequence[Point], values: Sequence[float]) -> dict[Member, float]:
    ranks, losses = rankdata(values), rankdata([point.checkpoint.scores["train_loss"] for point in points])
    rest = ranks - np.polynomial.Polynomial.fit(losses, ranks, 1)(losses)
    return {point.member: float(value) for point, value in zip(points, rest, strict=True)}


def primary(networks: Mapping) -> Correlation | None:
    """Return the correlation that decides C4 on a set."""
    return curvature_and_outcome(at_matched_level(networks), PRIMARY)


def loss_alone(networks: Mapping) -> Correlation | None:
    """Return what decides C4 with the training loss in the place of curvature."""
    return correlate(
        at_matched_level(networks),
        lambda point: point.checkpoint.scores["train_loss"],
        lambda point: point.outcome(OUTCOME),
    )
