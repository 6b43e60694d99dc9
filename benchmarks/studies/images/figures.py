"""Draw the figures of the comparison, as SVG files that are the same bytes for the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.report.curves import COLOURS, draw_learning_curves
from benchmarks.report.forest import Group, Line, draw_forest
from benchmarks.report.intervals import Comparison, t_interval
from benchmarks.report.svg import drawing
from benchmarks.run import Knob
from benchmarks.runs.measurement import MEASURES
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.comparison.tables import measured
from benchmarks.studies.images.claims import (
    CURVATURES,
    GEOMETRIES,
    MODERATE,
    NEGLIGIBLE,
    PENALTIES,
    Verdict,
    accuracy,
    differences,
)

__all__ = ["claim_groups", "draw_curves", "draw_intervals", "draw_scatter"]

_MANIFOLDS = {"plain": "plain weights", "spheres": "spheres", "stiefel": "Stiefel manifolds"}
_COLOURS = {"plain": COLOURS[0], "spheres": COLOURS[4], "stiefel": COLOURS[5]}
_MARKERS = {Knob.WEIGHT_DECAY: "o", Knob.RHO: "^", Knob.PENALTY: "s"}
_KINDS = {Knob.WEIGHT_DECAY: "no ascent", Knob.RHO: "sharpness-aware", Knob.PENALTY: "penalty"}
#: Whose learning curves are drawn: more would hide each other.
_CURVES = ("sgd", "sam", "gradient_norm", "hessian_trace", "riemannian_sgd", "rsam", "rsam_stiefel")


def claim_groups(found: Sequence[Verdict]) -> list[Group]:
    """Lay out what the verdicts rest on; a dashed line marks what a rule asks for."""
    of = {verdict.claim: verdict for verdict in found}
    if not of:
        return []
    c4, c5, c6 = ([comparison for _, comparison in of[claim].evidence] for claim in ("C4", "C5", "C6"))
    names = [MEASURES[name].label for name in PENALTIES.values()]
    points = "test accuracy minus SAM's, points"

    def lines(labels: Iterable[str], comparisons: Iterable[Comparison]) -> list[Line]:
        return [Line(label, c.simultaneous) for label, c in zip(labels, comparisons, strict=True)]

    def neutral(labels: Iterable[str], comparisons: Iterable[Comparison]) -> list[Line]:
        """Make lines of quantities of which more is neither better nor worse."""
        return [
            replace(line, verdict=f"{line.interval.estimate:.2f}", tone="undecided")
            for line in lines(labels, comparisons)
        ]

    return [
        Group(
            "C4: curvature and gap",
            neutral([MEASURES[name].label for name in CURVATURES], c4),
            "rank correlation with the gap",
            of["C4"].outcome,
            MODERATE,
        ),
        Group("C5: penalties, curvature", neutral(names, c5[::2]), "log₂ of curvature over SGD's", mark=-1),
        Group("C5: penalties, accuracy", lines(names, c5[1::2]), points, of["C5"].outcome),
        Group("C6: Riemannian SAM", lines(GEOMETRIES.values(), c6), points, of["C6"].outcome, NEGLIGIBLE),
    ]


def draw_intervals(entries: Sequence[Entry], reference: Entry, path: Path) -> None:
    """Draw test accuracy minus SAM's, paired by seed: each seed a dot, mean and 95 % interval over them."""
    groups: dict[str, list[Line]] = {}
    for entry in entries:
        if entry is not reference:
            values = differences(entry, reference)
            interval = t_interval(values)
            title = _MANIFOLDS[entry.contestant.kernels] if entry.at_case_epochs else "at equal gradient evaluations"
            groups.setdefault(title, []).append(Line(_label(entry), interval, f"{interval:.2f}", values=values))
    unit = "test accuracy minus SAM's, points"
    draw_forest([Group(title, lines, unit) for title, lines in groups.items()], path)


def _label(entry: Entry) -> str:
    more = "" if entry.at_case_epochs else f", {entry.epochs} epochs"
    return entry.contestant.label + more


def draw_curves(entries: Sequence[Entry], path: Path) -> None:
    """Draw train loss, train and test accuracy against epochs, means over the seeds."""
    kept = {
        entry.contestant.label: [row for row in entry.rows if not row.diverged]
        for entry in entries
        if entry.name in _CURVES
    }
    draw_learning_curves(kept, path)


def draw_scatter(entries: Sequence[Entry], path: Path) -> None:
    """Draw test accuracy against each curvature measure, one point per network."""
    with drawing(path, 5.4) as figure:
        for axes, name in zip(figure.subplots(2, 2, sharey=True).flat, CURVATURES, strict=True):
            for kernels, colour in _COLOURS.items():
                for knob, marker in _MARKERS.items():
                    _scatter(axes, entries, name, kernels, knob, marker, colour)
            axes.set(xscale="log", xlabel=MEASURES[name].label)
            axes.grid(alpha=0.3)
        figure.supylabel("test accuracy, %", fontsize="medium")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper center", ncols=2, columnspacing=1)


def _scatter(
    axes: Axes, entries: Sequence[Entry], measure: str, kernels: str, knob: Knob, marker: str, colour: str
) -> None:
    of_kind = [e for e in entries if (e.contestant.kernels, e.contestant.grid.knobs[-1]) == (kernels, knob)]
    rows = [row for entry in of_kind for row in entry.rows if measured(row, measure) > 0]
    if not rows:
        return
    axes.plot(
        [measured(row, measure) for row in rows],
        [accuracy(row) for row in rows],
        marker,
        color=colour,
        markersize=3.5,
        alpha=0.5,
        markeredgewidth=0,
        label=f"{kernels}, {_KINDS[knob]}",
    )
