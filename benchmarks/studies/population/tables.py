"""Tables of the population."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.report.table import markdown_table
from benchmarks.studies.population.claims import (
    carried_over,
    curvature_and_outcome,
    partial_r2,
    predicted,
    usable,
)
from benchmarks.studies.population.design import AXES, Member
from benchmarks.studies.population.features import (
    BASELINES,
    MARGINS,
    OTHERS,
    Point,
    at_end,
    at_fraction,
    at_level,
    at_matched_level,
    of_length,
)
from benchmarks.studies.population.ranks import Correlation, holm
from benchmarks.studies.population.rules import OUTCOME
from benchmarks.studies.population.training import FRACTIONS, LEVELS, Trajectory

__all__ = [
    "CURVATURES",
    "added",
    "axes",
    "by_time",
    "carried",
    "correlations",
    "joint",
    "joint_parts",
    "prediction",
    "reached",
    "summary",
]

Population = Mapping[Member, Trajectory]
#: Training accuracy from which on a network counts as one that fits its data.
FIT = 0.99
_ADDED = ["loss and accuracy"]
_WHOLE = [name for name in MARGINS if name not in ("margins, quartiles", "margins, not logarithms")]
#: What is carried over to short training: what could be less tied to the loss than margins are, and all of it together.
_CARRIED = [
    *((name, *more) for name in (*_WHOLE, *OTHERS) for more in ([], _ADDED)),
    *(("robustness", name, *_ADDED) for name in ("confidence", "constrained margins", "disagreement of relatives")),
    *((name,) for name in BASELINES),
]
#: Measures of curvature by their names in tables.
CURVATURES = {
    "riemannian_trace": "Hessian trace, filters on spheres",
    "riemannian_top_eigenvalue": "top eigenvalue, filters on spheres",
    "riemannian_gradient_norm": "gradient norm, filters on spheres",
    "riemannian_sharpness": "m-sharpness, filters on spheres",
    "relative_trace": "Hessian trace relative to weights",
    "relative_sharpness": "m-sharpness relative to weights",
    "relative_flatness": "relative flatness of the head",
    "euclidean_trace": "Hessian trace",
    "euclidean_top_eigenvalue": "top eigenvalue",
    "euclidean_gradient_norm": "gradient norm",
    "euclidean_sharpness": "m-sharpness",
}


def summary(networks: Population) -> list[list[str]]:
    """Describe a set's networks, a row for all and one for each length of training."""
    rows = []
    for label, chosen in (("all", None), ("full length", "full"), ("a quarter", "quarter")):
        points = [p for p in at_end(networks) if chosen in (None, p.member.hyperparameters["length"])]
        if not points:
            continue
        accuracies = [100 * p.checkpoint.scores["train_accuracy"] for p in points]
        gaps = [p.gap for p in points]
        fit = sum(a >= 100 * FIT for a in accuracies)
        rows.append([label, str(len(points)), _range(accuracies), _range(gaps), f"{fit}"])
    return rows


def _range(values: Sequence[float]) -> str:
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    return f"{low:.1f} to {high:.1f}, median {middle:.1f}"


def reached(networks: Population) -> str:
    """Count by axis value who reached each training loss."""
    found: dict[tuple[str, str], Counter] = {}
    for member, trajectory in networks.items():
        levels = {level for c in trajectory.checkpoints for level in c.levels}
        for axis, value in member.hyperparameters.items():
            counter = found.setdefault((axis, str(value)), Counter())
            counter["all"] += 1
            counter.update(levels)
    rows = [
        [f"{axis.replace('_', ' ')} {value}", str(c["all"]), *(f"{100 * c[level] / c['all']:.0f}" for level in LEVELS)]
        for (axis, value), c in sorted(found.items(), key=lambda item: (list(AXES).index(item[0][0]), item[0][1]))
    ]
    return markdown_table(["networks with", "number", *(f"{level}, %" for level in LEVELS)], rows)


def prediction(networks: Population) -> str:
    """Compare sets of features at the end of training, over all networks and within some of them."""
    points = usable(at_end(networks), "margins")  # the same networks for all features that all of them have
    full = of_length(points, "full")
    fit = [p for p in points if p.checkpoint.scores["train_accuracy"] >= FIT]
    columns = {
        "all": (points, False),
        "full length": (full, False),
        "within an architecture": (points, True),
        f"fit (≥ {100 * FIT:.0f} %)": (fit, False),
    }
    rows = []
    for names in [*((n,) for n in (*MARGINS, *OTHERS, *BASELINES)), ("margins", *_ADDED)]:
        cells = [str(len(usable(points, *names)))]
        for chosen, within in columns.values():
            found = predicted(chosen, *names, within=within)
            cells += [f"{found.adjusted:.2f}", f"{found.held_out:.2f}"] if found else ["", ""]
        rows.append([" + ".join(names), *cells])
    header = [f"{what}, {label}" for label in columns for what in ("adjusted R²", "k-fold R²")]
    return markdown_table(["features", "networks", *header], rows)


def added(networks: Population) -> list[list[str]]:
    """Say what margins add to each baseline."""
    points = at_end(networks)
    rows = []
    for baseline in BASELINES:
        found = partial_r2(points, ["margins"], [baseline])
        rows.append([baseline, f"{found:.2f}" if found else ""])
    return rows


def by_time(networks: Population) -> str:
    """Follow k-fold R² through the training of networks of full length, and at matched training losses."""
    names = ["margins", "margins, relative", "constrained margins", "k-variance margins", *BASELINES]
    times = [(f"{fraction:.0%}", of_length(at_fraction(networks, fraction), "full")) for fraction in FRACTIONS]
    times += [(f"loss {level}", at_level(networks, level)) for level in LEVELS]
    rows = []
    for label, points in times:
        points = usable(points, "margins")
        found = [predicted(points, name) for name in names]
        rows.append([label, str(len(points)), *(f"{f.held_out:.2f}" if f else "" for f in found)])
    return markdown_table(["at", "networks", *names], rows)


def carried(networks: Population) -> str:
    """Apply models of full-length networks at their end to others, and the reverse."""
    full, short = (of_length(usable(at_end(networks), "margins"), length) for length in ("full", "quarter"))
    targets: list[tuple[str, Sequence[Point], Sequence[Point]]] = [
        ("short ones at their end", full, short),
        *((f"itself at {f:.0%}", full, of_length(at_fraction(networks, f), "full")) for f in (0.2, 0.5, 0.8)),
        ("from short ones to full length", short, full),
    ]
    rows = []
    for names in _CARRIED:
        cells = []
        for i, (_, fitted, others) in enumerate(targets):
            found = carried_over(fitted, others, *names)
            if i == 0:
                cells = [str(found.others) if found else "0"]
            cells += [f"{found.r2:.2f}", f"{found.bias:.1f}"] if found else ["", ""]
        rows.append([" + ".join(names), *cells])
    header = [f"{what}, {label}" for label, *_ in targets for what in ("R²", "bias")]
    return markdown_table(["features", "short networks", *header], rows)


def correlations(networks: Population, outcome: str) -> str:
    """Correlate all measures of curvature with an outcome at each training loss, p-values after Holm."""
    found: dict[tuple[str, float], Correlation] = {}
    for level in LEVELS:
        points = at_level(networks, level)
        for measure in CURVATURES:
            one = curvature_and_outcome(points, measure, outcome)
            if one is not None:
                found[measure, level] = one
    corrected = holm({f"{m} {level}": one.p for (m, level), one in found.items()})
    rows = []
    for measure, label in CURVATURES.items():
        cells = []
        for level in LEVELS:
            one = found.get((measure, level))
            star = " *" if one and corrected[f"{measure} {level}"] < 0.05 else ""
            cells.append(f"{one.average:.2f}{star}" if one else "")
        rows.append([label, *cells])
    return markdown_table(["measure", *(f"loss {level}" for level in LEVELS)], rows)


def joint(networks: Population) -> str:
    """Predict the test error at one training loss from margins, from curvature, and from both."""
    points = usable(at_matched_level(networks), "margins", "curvature")
    rows = []
    for names in (("margins",), ("curvature",), ("margins", "curvature"), ("margins", "curvature", *_ADDED), _ADDED):
        found = predicted(points, *names, outcome=OUTCOME)
        cells = [str(found.networks), f"{found.adjusted:.2f}", f"{found.held_out:.2f}"] if found else ["", "", ""]
        rows.append([" + ".join(names), *cells])
    return markdown_table(["features", "networks", "adjusted R²", "k-fold R²"], rows)


def joint_parts(networks: Population) -> list[list[str]]:
    """Say what each of margins and curvature adds to the other at one training loss."""
    rows = []
    for more, baseline in (("curvature", "margins"), ("margins", "curvature")):
        found = partial_r2(at_matched_level(networks), [more], [baseline], OUTCOME)
        rows.append([f"{more}, beside {baseline}", f"{found:.2f}" if found else ""])
    return rows


def axes(found: Correlation) -> str:
    """Show the coefficient of each axis."""
    rows = [[a.replace("_", " "), str(found.pairs[a]), f"{e:.2f}"] for a, e in found.by_axis.items()]
    return markdown_table(["axis", "pairs", "Kendall's coefficient"], [*rows, ["mean", "", f"{found.average:.2f}"]])
