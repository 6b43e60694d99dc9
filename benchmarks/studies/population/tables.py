"""Tables of the population."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from benchmarks.report.table import markdown_table
from benchmarks.studies.population.claims import (
    carried_further,
    carried_over,
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
    matched_level,
    of_length,
)
from benchmarks.studies.population.ranks import Correlation, correlate, holm, pairs
from benchmarks.studies.population.rules import OUTCOME, PRIMARY
from benchmarks.studies.population.training import FRACTIONS, LEVELS, Trajectory

__all__ = [
    "CARRIED",
    "CURVATURES",
    "FIT",
    "added",
    "axes",
    "by_time",
    "carried",
    "carried_in_time",
    "correlations",
    "fitting",
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
CARRIED = [
    *((name, *more) for name in (*_WHOLE, *OTHERS) for more in ([], _ADDED)),
    *(("robustness", name, *_ADDED) for name in ("confidence", "constrained margins", "disagreement of relatives")),
    *((name,) for name in BASELINES),
]
_Found = TypeVar("_Found")
#: What a measure of curvature is correlated with.
OUTCOMES = ("test_error", "gap")
Measure = Callable[[Point], float | None]
#: Baselines that are one number, by their names in tables.
_SCALARS: Mapping[str, Measure] = {
    "baseline: training loss": lambda point: point.checkpoint.scores["train_loss"],
    "baseline: training error": lambda point: 1 - point.checkpoint.scores["train_accuracy"],
    "baseline: norm of the weights": lambda point: point.checkpoint.others["norm"],
    "baseline: path norm": lambda point: point.checkpoint.others["log_path"],
    "baseline: sum of losses": lambda point: BASELINES["sum of losses"](point)[0],
}
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


def fitting(points: Sequence[Point]) -> list[Point]:
    """Choose the networks that fit their data."""
    return [p for p in points if p.checkpoint.scores["train_accuracy"] >= FIT]


def prediction(networks: Population) -> dict[str, str]:
    """Compare sets of features at the end of training, over all networks and within some of them, by kind of R²."""
    points = usable(at_end(networks), "margins")  # the same networks for all features that all of them have
    columns = {
        "all": (points, False),
        "full length": (of_length(points, "full"), False),
        "within an architecture": (points, True),
        f"fit (≥ {100 * FIT:.0f} %)": (fitting(points), False),
    }
    adjusted, held_out = [], []
    for names in [*((n,) for n in (*MARGINS, *OTHERS, *BASELINES)), ("margins", *_ADDED)]:
        label = [" + ".join(names), str(len(usable(points, *names)))]
        found = [predicted(chosen, *names, within=within) for chosen, within in columns.values()]
        adjusted.append([*label, *_cells(found, lambda one: f"{one.adjusted:.2f}")])
        held_out.append([*label, *_cells(found, lambda one: f"{one.held_out:.2f}")])
    header = ["features", "networks", *(f"{label}: {len(chosen)}" for label, (chosen, _) in columns.items())]
    return {"adjusted R²": _filled(header, adjusted), "k-fold R²": _filled(header, held_out)}


def added(networks: Population) -> list[list[str]]:
    """Say what margins add to each baseline."""
    points = at_end(networks)
    rows = []
    for baseline in BASELINES:
        found = partial_r2(points, ["margins"], [baseline])
        rows.append([baseline, f"{found:.2f}" if found else ""])
    return rows


def by_time(networks: Population) -> list[str]:
    """Follow the gap's prediction through the training of networks of full length, and at losses of all networks.

    Three tables: k-fold R² of margins, of baselines, and correlations of predictions with the truth.
    """
    times = [(f"{fraction:.0%}", of_length(at_fraction(networks, fraction), "full")) for fraction in FRACTIONS]
    times += [(f"loss {level}", at_level(networks, level)) for level in LEVELS]
    kinds = ["margins", "margins, relative", "constrained margins", "k-variance margins", *_ADDED]
    names = list(dict.fromkeys([*kinds, *BASELINES]))
    rows: dict[str, list[list[str]]] = {"margins": [], "baselines": [], "correlation": []}
    for label, points in times:
        points = usable(points, "margins")
        found = {name: predicted(points, name) for name in names}
        start, of_kinds = [label, str(len(points))], [found[name] for name in kinds]
        of_baselines = [found[name] for name in BASELINES]
        rows["margins"].append([*start, *_cells(of_kinds, lambda one: f"{one.held_out:.2f}")])
        rows["baselines"].append([*start, *_cells(of_baselines, lambda one: f"{one.held_out:.2f}")])
        rows["correlation"].append([*start, *_cells(of_kinds, lambda one: f"{one.correlation:.2f}")])
    headers = {"margins": kinds, "baselines": list(BASELINES), "correlation": kinds}
    return [_filled(["at", "networks", *headers[kind]], of_kind) for kind, of_kind in rows.items()]


def carried(networks: Population) -> tuple[str, str]:
    """Apply models of full-length networks at their end to short ones, and the reverse."""
    full, short = (of_length(usable(at_end(networks), "margins"), length) for length in ("full", "quarter"))
    tables = []
    for fitted, others in ((full, short), (short, full)):
        rows = []
        for names in CARRIED:
            found, more = carried_over(fitted, others, *names), carried_further(fitted, others, names, _ADDED)
            cells = [f"{found.r2:.2f}", f"{found.error:.1f}", f"{found.bias:.1f}"] if found else ["", "", ""]
            beyond = f"{more:.2f}" if more and names != tuple(_ADDED) else ""
            rows.append([" + ".join(names), str(found.others if found else 0), *cells, beyond])
        header = ["features", "networks", "R²", "error", "bias", f"R² minus that of {_ADDED[0]}"]
        tables.append(_filled(header, rows))
    return tables[0], tables[1]


def carried_in_time(networks: Population) -> dict[str, str]:
    """Apply models of full-length networks at their end to the same networks earlier, and the reverse, by quantity."""
    times = {f: usable(of_length(at_fraction(networks, f), "full"), "margins") for f in (0.2, 0.5, 0.8, 1.0)}
    ways = [(1.0, 0.2), (1.0, 0.5), (1.0, 0.8), (0.5, 1.0)]
    rows: dict[str, list[list[str]]] = {"R²": [], "error, points": [], "bias, points": []}
    for (name,) in [names for names in CARRIED if len(names) == 1]:
        found = [carried_over(times[fitted], times[others], name) for fitted, others in ways]
        rows["R²"].append([name, *_cells(found, lambda one: f"{one.r2:.2f}")])
        rows["error, points"].append([name, *_cells(found, lambda one: f"{one.error:.1f}")])
        rows["bias, points"].append([name, *_cells(found, lambda one: f"{one.bias:.1f}")])
    header = ["features", *(f"{a:.0%} to {b:.0%}: {len(times[b])}" for a, b in ways)]
    return {quantity: _filled(header, of_quantity) for quantity, of_quantity in rows.items()}


def _cells(found: Sequence[_Found | None], shown: Callable[[_Found], str]) -> list[str]:
    """Show what was found, and nothing where networks are too few."""
    return ["" if one is None else shown(one) for one in found]


def _filled(header: list[str], rows: list[list[str]]) -> str:
    """Write a table without the rows and columns in which nothing but counts of networks stands."""
    first = 1 + (header[1] == "networks")
    rows = [row for row in rows if any(row[first:])]
    kept = [i for i in range(len(header)) if i < first or any(row[i] for row in rows)]
    return markdown_table([header[i] for i in kept], [[row[i] for i in kept] for row in rows])


def correlations(networks: Population) -> dict[str, str]:
    """Correlate all measures of curvature with test error and gap at each training loss.

    Holm's correction is over all of these, without the one that decides C4. What baselines reach stands below.
    """
    found: dict[tuple[str, str, float], Correlation] = {}
    for level in LEVELS:
        points = at_level(networks, level)
        for outcome in OUTCOMES:
            for name, measure in {**_curvatures(), **_SCALARS}.items():
                one = correlate(points, measure, partial(Point.outcome, name=outcome))
                if one is not None:
                    found[outcome, name, level] = one
    decisive = (OUTCOME, CURVATURES[PRIMARY], matched_level(networks))
    corrected = holm({key: one.p for key, one in found.items() if key[1] not in _SCALARS and key != decisive})

    def cell(key: tuple[str, str, float]) -> str:
        if key not in found:
            return ""
        star = " *" if corrected.get(key, 1.0) < 0.05 else ""
        return f"{found[key].average:.2f} ({len(found[key].by_axis)}){star}"

    header = ["measure", *(f"loss {level}" for level in LEVELS)]
    names = [*_curvatures(), *_SCALARS]
    return {
        outcome: _filled(header, [[name, *(cell((outcome, name, level)) for level in LEVELS)] for name in names])
        for outcome in OUTCOMES
    }


def _curvatures() -> dict[str, Measure]:
    """Return the measures of curvature by their names in tables."""
    return {label: partial(_curvature, name=name) for name, label in CURVATURES.items()}


def _curvature(point: Point, name: str) -> float | None:
    return point.checkpoint.curvature.get(name)


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


def axes(networks: Population, found: Correlation | None) -> str:
    """Show the coefficient of each axis, and the bounds that pairs which do not both reach the loss leave it."""
    every = pairs(networks)
    met = pairs(point.member for point in at_matched_level(networks) if _curvature(point, PRIMARY) is not None)
    rows = []
    for axis in AXES:
        label, counts = axis.replace("_", " "), [str(met[axis]), str(every[axis] - met[axis])]
        if found and axis in found.by_axis:
            coefficient = found.by_axis[axis]
            low, high = ((coefficient.mean * met[axis] + s * (every[axis] - met[axis])) / every[axis] for s in (-1, 1))
            rows.append([label, *counts, f"{coefficient:.2f}", f"{low:.2f} to {high:.2f}"])
        else:
            rows.append([label, *counts, "left out", ""])
    if found:
        rows.append(["mean", "", "", f"{found.average:.2f}", ""])
    return markdown_table(["axis", "pairs", "other pairs", "Kendall's coefficient", "bounds"], rows)
