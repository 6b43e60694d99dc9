"""Networks of the population at one time of their training, and numbers that may predict their gap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from benchmarks.studies.population.design import AXES, Member
from benchmarks.studies.population.measurement import LAYERS, STATISTICS, Checkpoint
from benchmarks.studies.population.rules import CHANCE, REACHED
from benchmarks.studies.population.training import LEVELS, Trajectory

__all__ = [
    "BASELINES",
    "FEATURES",
    "MARGINS",
    "OTHERS",
    "Point",
    "above_chance",
    "at_end",
    "at_fraction",
    "at_level",
    "at_matched_level",
    "matched_level",
    "matrix",
    "of_length",
]

Numbers = Sequence[float | None]
_HIDDEN = [layer for layer in LAYERS if layer != "output"]
_LOGARITHMS = slice(len(STATISTICS) // 2, None)
_VALUES = slice(None, len(STATISTICS) // 2)
_QUARTILES = slice(len(STATISTICS) // 2, len(STATISTICS) // 2 + 3)


@dataclass(frozen=True)
class Point:
    """A network at one time of its training.

    Attributes
    ----------
    member : Member
        Its configuration.
    trajectory : Trajectory
        All that is known of it.
    checkpoint : Checkpoint
        What it is at that time.
    relatives : sequence of (Member, Trajectory)
        Other networks made from its base configuration.
    """

    member: Member
    trajectory: Trajectory
    checkpoint: Checkpoint
    relatives: Sequence[tuple[Member, Trajectory]] = ()

    @property
    def gap(self) -> float:
        """Training minus test accuracy, in points."""
        return 100 * (self.checkpoint.scores["train_accuracy"] - self.checkpoint.scores["test_accuracy"])

    @property
    def test_error(self) -> float:
        """In percent."""
        return 100 * (1 - self.checkpoint.scores["test_accuracy"])

    def outcome(self, name: str) -> float:
        """Return the gap or the test error."""
        return self.gap if name == "gap" else self.test_error


def at_fraction(networks: Mapping[Member, Trajectory], fraction: float) -> list[Point]:
    """Find the networks at a part of their training."""
    return _points(networks, lambda c: abs(c.fraction - fraction) < 1e-9)


def at_end(networks: Mapping[Member, Trajectory]) -> list[Point]:
    """Find the networks at the end of their training."""
    return at_fraction(networks, 1.0)


def at_level(networks: Mapping[Member, Trajectory], level: float) -> list[Point]:
    """Find the networks whose training loss reaches a level, where it first falls below it."""
    return _points(networks, lambda c: level in c.levels)


def matched_level(networks: Mapping[Member, Trajectory]) -> float:
    """Find the training loss at which the networks of a set are compared: the lowest that enough of them reach."""
    counts = {level: len(at_level(networks, level)) for level in LEVELS}
    return min((level for level in LEVELS if counts[level] >= REACHED * len(networks)), default=LEVELS[0])


def at_matched_level(networks: Mapping[Member, Trajectory]) -> list[Point]:
    """Find the networks that reach that training loss, where they do."""
    return at_level(networks, matched_level(networks))


def _points(networks: Mapping[Member, Trajectory], wanted: Callable[[Checkpoint], bool]) -> list[Point]:
    families: dict[tuple[str, int, float], list[tuple[Member, Trajectory]]] = {}
    for member, trajectory in networks.items():
        if not trajectory.diverged:
            families.setdefault((member.place, member.base, member.label_noise), []).append((member, trajectory))
    return [
        Point(member, trajectory, checkpoint, [relative for relative in family if relative[0] is not member])
        for family in families.values()
        for member, trajectory in family
        if (checkpoint := next(filter(wanted, trajectory.checkpoints), None)) is not None
    ]


def of_length(points: Iterable[Point], length: str) -> list[Point]:
    """Choose the networks of ``"full"`` or ``"quarter"`` length."""
    return [point for point in points if point.member.hyperparameters["length"] == length]


def above_chance(points: Iterable[Point]) -> list[Point]:
    """Choose the networks that have learned something by then."""
    return [point for point in points if point.checkpoint.scores["train_accuracy"] >= CHANCE]


def matrix(points: Sequence[Point], *names: str) -> np.ndarray:
    """Return the features of several sets side by side, a row for each network; nan for what does not exist."""
    return np.concatenate([_columns(points, name) for name in names], 1)


def _columns(points: Sequence[Point], name: str) -> np.ndarray:
    rows = [[math.nan if v is None else v for v in FEATURES[name](point)] for point in points]
    columns = np.array(rows, dtype=np.float64)
    if name == _RANKS:
        return rankdata(columns, axis=0, nan_policy="omit") / len(columns)
    return columns


# -- margins ---------------------------------------------------------------------------------------------------------


def _of_layers(layers: Sequence[str], which: slice) -> Callable[[Point], Numbers]:
    return lambda point: [v for layer in layers for v in point.checkpoint.margins[layer][which]]


def _relative(point: Point) -> Numbers:
    """Quartiles of each layer's logarithms relative to the median, and shape; a factor of all margins cancels."""
    found: list[float | None] = []
    for layer in _HIDDEN:
        q1, median, q3, _, deviation, skewness, kurtosis = point.checkpoint.margins[layer][_LOGARITHMS]
        known = q1 is not None and median is not None and q3 is not None
        found += [q1 - median, q3 - median] if known else [None, None]  # type: ignore[operator]
        found += [deviation, skewness, kurtosis]
    return found


def _over(norm: str) -> Callable[[Point], Numbers]:
    """Return quartiles of the logarithms of output margins, each divided by a norm of the network."""
    return lambda point: [
        _difference(quartile, point.checkpoint.others[norm])
        for quartile in point.checkpoint.margins["output"][_QUARTILES]
    ]


def _at_level(level: float) -> Callable[[Point], Numbers]:
    """Return margins at the time when the training loss fell below a level, if it has done so by now."""

    def margins(point: Point) -> Numbers:
        for checkpoint in point.trajectory.checkpoints:
            if level in checkpoint.levels and checkpoint.fraction <= point.checkpoint.fraction:
                return _log_margins(Point(point.member, point.trajectory, checkpoint))
        return [None] * len(_log_margins(point))

    return margins


def _k_variance(point: Point) -> Numbers:
    found = [point.checkpoint.others[f"kv_{layer}"] for layer in ("input", "last")]
    # most are thousandths; where the cost that they are divided by is next to nothing they are hundreds
    return [None if m is None else math.copysign(math.log1p(1000 * abs(m)), m) for m in found]


# -- baselines -------------------------------------------------------------------------------------------------------


def _loss_and_accuracy(point: Point) -> Numbers:
    scores = point.checkpoint.scores
    return [scores["train_loss"], _log(scores["train_loss"]), scores["train_accuracy"]]


def _hyperparameters(point: Point) -> Numbers:
    """Numbers as they are or as logarithms, and one number for each optimizer but the first."""
    v = point.member.hyperparameters
    optimizers = list(AXES["optimizer"])[1:]
    return [
        *(float(v[axis]) for axis in ("width", "depth", "batch_norm", "rate", "decay", "dropout", "augment")),
        math.log2(v["batch_size"]),
        float(v["length"] == "full"),
        *(float(v["optimizer"] == name) for name in optimizers),
    ]


def _norms(point: Point) -> Numbers:
    others = point.checkpoint.others
    return [_log(others["norm"]), _log(others["distance"]), others["log_path"], others["log_spectral"]]


def _loss_sum(point: Point) -> Numbers:
    """Sum the losses of all batches, an epoch of small ones and one of large ones alike."""
    return [_log(_product(point.checkpoint.others["loss_sum"], point.member.hyperparameters["batch_size"]))]


def _product(first: float | None, second: float) -> float | None:
    return None if first is None else first * second


# -- other predictors of the gap -------------------------------------------------------------------------------------


def _robustness(point: Point) -> Numbers:
    """Accuracy and loss on mixtures of training examples of a class, and on moved ones."""
    others = point.checkpoint.others
    return [
        v
        for name in ("mixup", "moved")
        for v in (others[f"{name}_accuracy"], others[f"{name}_loss"], _log(others[f"{name}_loss"]))
    ]


def _robustness_gaps(point: Point) -> Numbers:
    """How much worse training examples do once they are mixed or moved."""
    scores, others = point.checkpoint.scores, point.checkpoint.others
    return [
        _difference(scores[f"train_{kind}"], others[f"{name}_{kind}"])
        for name in ("mixup", "moved")
        for kind in ("accuracy", "loss")
    ]


def _confidence(point: Point) -> Numbers:
    """Training accuracy less the mean probability of the likeliest class of inputs without labels."""
    return [_difference(point.checkpoint.scores["train_accuracy"], point.checkpoint.others["confidence"])]


def _disagreement(is_compared: Callable[[Member, Member], bool]) -> Callable[[Point], Numbers]:
    """Return what the gap would be if networks disagreed on unlabelled inputs as often as they are wrong there.

    Mean over the relatives with which a network is compared, as they are after the same part of their training.
    """

    def gap(point: Point) -> Numbers:
        own = _classes(point.checkpoint)
        others = [
            _classes(checkpoint)
            for member, trajectory in point.relatives
            if is_compared(point.member, member)
            for checkpoint in trajectory.checkpoints
            if abs(checkpoint.fraction - point.checkpoint.fraction) < 1e-9 and checkpoint.predictions
        ]
        if not len(own) or not others:
            return [None]
        return [_difference(point.checkpoint.scores["train_accuracy"], float(np.mean([own == o for o in others])))]

    return gap


def _classes(checkpoint: Checkpoint) -> np.ndarray:
    return np.frombuffer(checkpoint.predictions.encode(), np.uint8)


def _are_twins(first: Member, second: Member) -> bool:
    """Tell whether two networks differ in the seed only."""
    return first.values == second.values and first.seed != second.seed


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _curvature(point: Point) -> Numbers:
    return [_log(point.checkpoint.curvature.get(name)) for name in ("riemannian_trace", "riemannian_gradient_norm")]


def _log(value: float | None) -> float | None:
    return math.log(value) if value is not None and value > 0 else None


_log_margins = _of_layers(_HIDDEN, _LOGARITHMS)
#: Ranks among the networks that are looked at, which a shift of all of them does not change.
_RANKS = "margins, ranks"

MARGINS: Mapping[str, Callable[[Point], Numbers]] = {
    "margins": _log_margins,
    "margins, quartiles": _of_layers(_HIDDEN, _QUARTILES),
    "margins, not logarithms": _of_layers(_HIDDEN, _VALUES),
    **{f"margins, {layer}": _of_layers([layer], _LOGARITHMS) for layer in _HIDDEN},
    "margins, relative": _relative,
    _RANKS: _log_margins,
    **{f"margins at loss {level}": _at_level(level) for level in LEVELS[:2]},
    "output margins": _of_layers(["output"], _VALUES),
    "output margins over spectral norms": _over("log_spectral"),
    "output margins over path norm": _over("log_path"),
    "constrained margins": _of_layers(["constrained"], _LOGARITHMS),
    "k-variance margins": _k_variance,
}
OTHERS: Mapping[str, Callable[[Point], Numbers]] = {
    "robustness": _robustness,
    "robustness gaps": _robustness_gaps,
    "confidence": _confidence,
    "disagreement of twins": _disagreement(_are_twins),
    "disagreement of relatives": _disagreement(lambda first, second: first != second),
}
BASELINES: Mapping[str, Callable[[Point], Numbers]] = {
    "loss and accuracy": _loss_and_accuracy,
    "hyper-parameters": _hyperparameters,
    "weight norms": _norms,
    "sum of losses": _loss_sum,
}
#: Sets of features by their names in tables.
FEATURES: Mapping[str, Callable[[Point], Numbers]] = {**MARGINS, **OTHERS, **BASELINES, "curvature": _curvature}
