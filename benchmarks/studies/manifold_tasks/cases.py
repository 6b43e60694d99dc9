"""Define the cases, and the settings to tune over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.run import Run
from benchmarks.studies.comparison.cases import Case, Score
from benchmarks.studies.manifold_tasks.contestants import contestants
from benchmarks.workloads.hyperbolic import Embedded, FewLabels
from benchmarks.workloads.problem import Workload
from benchmarks.workloads.recurrent import Sequences
from benchmarks.workloads.spd import HandSigns

__all__ = ["ANIMALS", "HYPERBOLIC", "NOUNS", "RECURRENT", "SPD", "shortened"]

#: Measures of the final runs.
_MEASURES = ("gradient_norm", "trace", "top_eigenvalue")


def _template(workload: Workload, epochs: int) -> Run:
    return Run(workload, "", 0, 0.0, epochs, measures=_MEASURES)


def shortened(cases: Sequence[Case], *names: str) -> tuple[Case, ...]:
    """Shorten the named cases, or all of them, to few epochs."""
    return tuple(
        replace(case, template=replace(case.template, epochs=max(2, case.template.epochs // 20)))
        for case in cases
        if not names or case.name in names
    )


# ---- hyperbolic

_SPACES = {"poincare": "Poincaré ball", "lorentz": "hyperboloid"}
_HELD_OUT = {0.0: "reconstruction", 0.1: "10 % held out", 0.5: "50 % held out"}
_BALL = (
    ". Steps in the ball are geodesics (geoopt's PoincareBallExact). Those of PoincareBall are straight: long ones "
    "leave the ball, points are put back on its border, and most then stay there"
)
#: Note on what the seeds of a hierarchy vary.
_NOTES = {
    "mammals": "initial points, order and negative samples, but not the edges held out for the test",
    "animals": "initial points, order and negative samples",
    "nouns": "initial points, order and negative samples",
}
#: The loss is a mean over a batch of 512 edges, each of which moves few points: hence rates far above 1. The radii of
#: the projected ascent are small, since it is in coordinates, and points crowd near the border of the ball.
_EMBEDDING = {
    space: contestants((3.0, 10.0, 17.0, 30.0), (0.01, 0.03, 0.1, 0.3), (0.003, 0.02, 0.1), ambient)
    for space, ambient in (("poincare", (1e-4, 1e-3, 1e-2)), ("lorentz", (1e-2, 1e-1, 1.0)))
}


def _embeddings(hierarchy: str, spaces: tuple[str, ...], sizes: tuple[int, ...], epochs: int) -> list[Case]:
    tuned = 5 if 5 in sizes else sizes[0]
    cases = []
    for space in spaces:
        for fraction, label in _HELD_OUT.items():
            for size in sizes:
                # tuned with half of the edges held out, the tenth among them: tuning sees no test edge of either
                by = f"{hierarchy}-{space}-{tuned}-{'reconstruction' if fraction == 0 else '50'}"
                name = f"{hierarchy}-{space}-{size}-{'reconstruction' if fraction == 0 else round(100 * fraction)}"
                cases.append(
                    Case(
                        name,
                        f"{hierarchy}, {_SPACES[space]}, {size} dimensions, {label}",
                        _template(Embedded(hierarchy, space, size, fraction), epochs),
                        _EMBEDDING[space],
                        Score("map", worst=0.0),
                        f"{hierarchy}, {'reconstruction' if fraction == 0 else 'edges held out'}",
                        _NOTES[hierarchy] + (_BALL if space == "poincare" else ""),
                        tuned_with="" if by == name else by,
                    )
                )
    # cases that others take settings from come first
    return sorted(cases, key=lambda case: case.tuned_with != "")


HYPERBOLIC = (
    *_embeddings("mammals", ("poincare", "lorentz"), (5, 2, 10), 100),
    Case(
        "few_labels",
        "digits, ten labels per class, Poincaré ball",
        _template(FewLabels(16), 100),
        contestants((0.001, 0.003, 0.01, 0.03), (0.001, 0.003, 0.01, 0.03), (0.02, 0.05, 0.2), (0.02, 0.05, 0.2)),
        Score(worst=0.1),
        "digits, ten labels per class",
        "which images are labelled, initial weights and order, but not the test images. Only the hyperplanes, a few of "
        "the parameters, live in the ball",
    ),
)
#: One setting per method, since tuning over all nouns would take days. The quick version embeds the animals among
#: them.
NOUNS, ANIMALS = (
    tuple(
        replace(case, contestants=contestants((30.0,), (0.03,), (0.01,), (0.01,), (0.9,), (0.9,)), tuned_with="")
        for case in _embeddings(hierarchy, ("lorentz",), (10,), 20)
    )
    for hierarchy in ("nouns", "animals")
)

# ---- recurrent

#: Logarithm of the variance of the sum of two uniform numbers: the error of a network that has learnt its mean.
_MEAN_ONLY = math.log10(1 / 6)
_METRICS = {"stiefel": "Euclidean metric", "canonical": "canonical metric"}
_SQUARE = (
    ". The recurrent matrix is square, so the canonical metric is half the Euclidean one: the two differ in the units "
    "of rho and learning rate, and in the retraction"
)
_RATES = (0.003, 0.01, 0.03, 0.1)
_RADII = (0.01, 0.05, 0.2)
_SEQUENCES = contestants(_RATES, _RATES, _RADII, _RADII)
RECURRENT = tuple(
    Case(
        f"{problem}-{metric}",
        f"{label}, {text}",
        _template(Sequences(problem, metric, 64), epochs),
        contestants((0.001, 0.003, 0.01, 0.03), _RATES, _RADII, _RADII) if problem == "adding" else _SEQUENCES,
        score,
        label,
        note + _SQUARE,
    )
    for problem, label, epochs, score, note in (
        (
            "copying",
            "copying over 30 steps",
            20,
            Score(worst=1 / 8),
            "training and test sequences, initial weights and order",
        ),
        (
            "adding",
            "adding over 20 steps",
            60,
            Score("log_error", 1.0, _MEAN_ONLY, smaller=True),
            "training and test sequences, initial weights and order",
        ),
        (
            "rows",
            "Fashion-MNIST mini row by row",
            20,
            Score(worst=1 / 10),
            "initial weights and order, but not the images",
        ),
    )
    for metric, text in _METRICS.items()
)

# ---- symmetric positive definite

SPD = tuple(
    Case(
        f"emg-{metric}",
        f"hand signs in another session, {text}",
        _template(HandSigns(metric, 6), 30),
        # moved once, to larger rates of Adam and smaller rho, since most methods had chosen an end of the grid
        contestants((0.01, 0.03, 0.1, 0.2), (0.003, 0.01, 0.03, 0.1), (0.0125, 0.05, 0.2), (0.0125, 0.05, 0.2)),
        Score(worst=0.2),
        "hand signs in another session",
        "initial weights and order, but not the signals, which are of two people",
    )
    for metric, text in _METRICS.items()
)
