"""On what methods are compared, and what their tuning may choose from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from benchmarks.tasks.methods import METHODS
from benchmarks.tasks.trial import Trial

__all__ = ["ANIMALS", "HYPERBOLIC", "NOTES", "NOUNS", "RECURRENT", "SPD", "Case", "Grid"]

_SQUARE = (
    "; the recurrent matrix is square, where the canonical metric is half the Euclidean one: the two differ in the "
    "units of rho and learning rate, and in the retraction"
)
_BALL = (
    ". Steps in the ball are geodesics (geoopt's PoincareBallExact): those of PoincareBall are straight, leave the "
    "ball where they are long, and most points then stay at the border that they are put back to"
)
#: What the seeds of a task vary, and what else one should know of it.
NOTES = {
    "mammals": "initial points, order, negative samples; not the edges held out for the test" + _BALL,
    "animals": "initial points, order, negative samples",
    "nouns": "initial points, order, negative samples",
    "few_labels": "which images are labelled, initial weights, order; not the test images. Only the hyperplanes live "
    "in the ball, a few of the parameters",
    "copying": "sequences to train and to test on, initial weights, order" + _SQUARE,
    "adding": "sequences to train and to test on, initial weights, order" + _SQUARE,
    "rows": "initial weights, order; not the images" + _SQUARE,
    "emg": "initial weights, order; not the signals, which are of two people",
}


@dataclass(frozen=True)
class Grid:
    """Learning rates, and values of the knob: the same number of settings for each method.

    Attributes
    ----------
    sgd, adam : tuple of float
        Learning rates over each base.
    rho : tuple of float
        Radii of RSAM, in the metric.
    projected_rho : tuple of float
        Radii of the projected ascent, in the ambient space.
    momentum, beta : tuple of float
        What the bases are tuned by when alone.
    """

    sgd: tuple[float, ...]
    adam: tuple[float, ...]
    rho: tuple[float, ...]
    projected_rho: tuple[float, ...]
    momentum: tuple[float, ...] = (0.0, 0.5, 0.9)
    beta: tuple[float, ...] = (0.5, 0.9, 0.95)

    def settings(self, method: str) -> list[tuple[float, float]]:
        """Pairs of learning rate and knob that a method is tried with."""
        rates, knobs = getattr(self, METHODS[method].rates), getattr(self, METHODS[method].knobs)
        return [(lr, knob) for lr in rates for knob in knobs]


@dataclass(frozen=True)
class Case:
    """A task, a manifold and a size.

    Attributes
    ----------
    name, label : str
        For files, and for tables.
    template : Trial
        All of a trial but method, seed, learning rate and knob.
    grid : Grid
        What tuning may choose from.
    group : str
        The question that it is a part of: what is concluded, is concluded on the mean over the cases of a group.
    score : str
        What is tuned and compared.
    unit : float
        What scores are multiplied by in tables.
    worst : float
        The score of a model that diverged: that of one that has learnt nothing.
    smaller : bool
        Whether the score is better the smaller it is.
    tuned_with : str
        The name of another case, whose settings are taken; empty to tune for itself.
    """

    name: str
    label: str
    template: Trial
    grid: Grid
    group: str
    score: str = "accuracy"
    unit: float = 100.0
    worst: float = 0.0
    smaller: bool = False
    tuned_with: str = ""

    def trial(self, method: str, lr: float, knob: float) -> Trial:
        """The final trial of seed 0 at a setting."""
        epochs = self.template.epochs * METHODS[method].passes
        return replace(self.template, method=method, epochs=epochs, lr=lr, knob=knob)


def _trial(task: str, **options: object) -> Trial:
    return Trial(task, "", 0, 0.0, 0.0, curvature=True, **options)  # type: ignore[arg-type]


# ---- hyperbolic

_SPACES = {"poincare": "Poincaré ball", "lorentz": "hyperboloid"}
_HELD_OUT = {0.0: "reconstruction", 0.1: "10 % held out", 0.5: "50 % held out"}
#: The mean over a batch of 512 edges, each of which moves few of the points: hence rates far above 1. The projected
#: ascent is in coordinates, which crowd near the border of the ball.
_EMBEDDING = {
    space: Grid((3.0, 10.0, 17.0, 30.0), (0.01, 0.03, 0.1, 0.3), (0.003, 0.02, 0.1), ambient)
    for space, ambient in (("poincare", (1e-4, 1e-3, 1e-2)), ("lorentz", (1e-2, 1e-1, 1.0)))
}


def _embeddings(task: str, spaces: tuple[str, ...], sizes: tuple[int, ...], epochs: int) -> list[Case]:
    tuned = 5 if 5 in sizes else sizes[0]
    found = []
    for space in spaces:
        for fraction, label in _HELD_OUT.items():
            for size in sizes:
                # with half held out, of which the tenth is a part: tuning has seen no test edge of either
                by = f"{task}-{space}-{tuned}-{'reconstruction' if fraction == 0 else '50'}"
                name = f"{task}-{space}-{size}-{'reconstruction' if fraction == 0 else round(100 * fraction)}"
                template = _trial(task, manifold=space, size=size, epochs=epochs, fraction=fraction, momentum=0.9)
                text = f"{task}, {_SPACES[space]}, {size} dimensions, {label}"
                group = f"{task}, {'reconstruction' if fraction == 0 else 'edges held out'}"
                by = "" if by == name else by
                found.append(Case(name, text, template, _EMBEDDING[space], group, "map", tuned_with=by))
    # those that others take their settings from come first
    return sorted(found, key=lambda case: case.tuned_with != "")


HYPERBOLIC = (
    *_embeddings("mammals", ("poincare", "lorentz"), (5, 2, 10), 100),
    Case(
        "few_labels",
        "digits, ten labels a class, Poincaré ball",
        _trial("few_labels", manifold="poincare", size=16, epochs=100, momentum=0.9),
        Grid((0.001, 0.003, 0.01, 0.03), (0.001, 0.003, 0.01, 0.03), (0.02, 0.05, 0.2), (0.02, 0.05, 0.2)),
        "digits, ten labels a class",
        worst=0.1,
    ),
)
#: At one setting of each method: tuning over all nouns would take days. With animals, a part of them, in little.
NOUNS, ANIMALS = (
    tuple(
        replace(case, grid=Grid((30.0,), (0.03,), (0.01,), (0.01,), (0.9,), (0.9,)), tuned_with="")
        for case in _embeddings(task, ("lorentz",), (10,), 20)
    )
    for task in ("nouns", "animals")
)

# ---- recurrent

#: Logarithm of the variance of the sum of two uniform numbers: the error of a network that has learnt its mean.
_MEAN_ONLY = math.log10(1 / 6)
_METRICS = {"stiefel": "Euclidean metric", "canonical": "canonical metric"}
_SEQUENCES = Grid((0.003, 0.01, 0.03, 0.1), (0.003, 0.01, 0.03, 0.1), (0.01, 0.05, 0.2), (0.01, 0.05, 0.2))
RECURRENT = tuple(
    Case(
        f"{task}-{metric}",
        f"{label}, {text}",
        _trial(task, manifold=metric, size=64, epochs=epochs, momentum=0.9),
        replace(_SEQUENCES, sgd=(0.001, 0.003, 0.01, 0.03)) if task == "adding" else _SEQUENCES,
        label,
        *(("log_error", 1.0, nothing, True) if task == "adding" else ("accuracy", 100.0, nothing)),
    )
    for task, label, epochs, nothing in (
        ("copying", "copying over 30 steps", 20, 1 / 8),
        ("adding", "adding over 20 steps", 60, _MEAN_ONLY),
        ("rows", "Fashion-MNIST mini row by row", 20, 1 / 10),
    )
    for metric, text in _METRICS.items()
)

# ---- symmetric positive definite

SPD = tuple(
    Case(
        f"emg-{metric}",
        f"hand signs in another session, {text}",
        _trial("emg", manifold=metric, size=6, epochs=30, momentum=0.9),
        # moved once, where most had chosen an end: to larger rates of Adam and smaller rho
        Grid((0.01, 0.03, 0.1, 0.2), (0.003, 0.01, 0.03, 0.1), (0.0125, 0.05, 0.2), (0.0125, 0.05, 0.2)),
        "hand signs in another session",
        worst=0.2,
    )
    for metric, text in _METRICS.items()
)
