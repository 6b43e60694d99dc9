"""Figures of the comparison, as SVG files that are the same bytes for the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.report.curves import COLOURS
from benchmarks.report.svg import save_svg
from benchmarks.run import Knob
from benchmarks.runs.measurement import MEASURES
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.comparison.figures import draw_interval, label_rows
from benchmarks.studies.comparison.tables import measured
from benchmarks.studies.images.claims import CURVATURES, accuracy, differences

__all__ = ["draw_curves", "draw_intervals", "draw_scatter"]

_COLOURS = {"plain": COLOURS[0], "spheres": COLOURS[4], "stiefel": COLOURS[5]}
_MARKERS = {Knob.WEIGHT_DECAY: "o", Knob.RHO: "^", Knob.PENALTY: "s"}
_KINDS = {Knob.WEIGHT_DECAY: "no ascent", Knob.RHO: "sharpness-aware", Knob.PENALTY: "penalty"}
#: Whose learning curves are drawn: more would hide each other.
_CURVES = ("sgd", "sam", "gradient_norm", "hessian_trace", "riemannian_sgd", "rsam", "rsam_stiefel")


def draw_intervals(entries: Sequence[Entry], reference: Entry, path: Path) -> None:
    """Draw test accuracy minus SAM's, paired by seed: each seed a dot, mean and 95 % interval over them."""
    others = [entry for entry in entries if entry is not reference]
    figure = Figure(figsize=(7, 0.8 + 0.27 * len(others)), layout="constrained")
    axes = figure.subplots()
    for place, entry in enumerate(others):
        values = differences(entry, reference)
        colour = _COLOURS[entry.contestant.kernels]
        axes.plot(values, [place] * len(values), ".", color=colour, alpha=0.3, markersize=4)
        draw_interval(axes, place, values, color=colour, markersize=4)
    label_rows(axes, [_label(entry) for entry in others])
    axes.set_xlabel("test accuracy minus SAM's, percentage points")
    save_svg(figure, path)


def _label(entry: Entry) -> str:
    more = "" if entry.at_case_epochs else f", {entry.epochs} epochs"
    return entry.contestant.label + more


def draw_curves(entries: Sequence[Entry], path: Path) -> None:
    """Draw train loss, train and test accuracy against epochs, means over the seeds."""
    figure = Figure(figsize=(7, 7), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    shown = [e for e in entries if e.name in _CURVES]
    for colour, entry in zip(COLOURS, shown, strict=False):
        rows = [row for row in entry.rows if not row.diverged]
        if not rows:
            continue
        curves = (
            [row.curves["train_loss"] for row in rows],
            [[100 * value for value in row.curves["train_accuracy"]] for row in rows],
            [[100 * value for value in row.curves["accuracy"]] for row in rows],
        )
        for axes, values in zip(panels, curves, strict=True):
            mean = np.mean(values, axis=0)
            axes.plot(np.arange(1, len(mean) + 1), mean, color=colour, label=entry.contestant.label)
    for axes, title in zip(panels, ("train loss", "train accuracy, %", "test accuracy, %"), strict=True):
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    panels[0].set_yscale("log")
    panels[-1].set_xlabel("epoch")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize="small")
    save_svg(figure, path)


def draw_scatter(entries: Sequence[Entry], path: Path) -> None:
    """Draw test accuracy against each curvature measure, one point a network."""
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    for axes, name in zip(figure.subplots(2, 2, sharey=True).flat, CURVATURES, strict=True):
        for kernels, colour in _COLOURS.items():
            for knob, marker in _MARKERS.items():
                rows = [
                    row
                    for entry in entries
                    if (entry.contestant.kernels, entry.contestant.grid.knob) == (kernels, knob)
                    for row in entry.rows
                    if measured(row, name) > 0
                ]
                if rows:
                    axes.plot(
                        [measured(row, name) for row in rows],
                        [accuracy(row) for row in rows],
                        marker,
                        color=colour,
                        markersize=3.5,
                        alpha=0.5,
                        markeredgewidth=0,
                        label=f"{kernels}, {_KINDS[knob]}",
                    )
        axes.set(xscale="log", xlabel=MEASURES[name].label)
        axes.grid(alpha=0.3)
    figure.supylabel("test accuracy, %")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize="small")
    save_svg(figure, path)
