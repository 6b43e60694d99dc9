"""Figures of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm

from benchmarks.report.curves import COLOURS
from benchmarks.report.intervals import t_interval
from benchmarks.report.svg import drawing
from benchmarks.studies.norms_and_skips.design import VARIANTS, Variant
from benchmarks.studies.norms_and_skips.effects import MEASURES, Measure, Networks
from benchmarks.studies.norms_and_skips.measurement import CURVATURE, EXTENT
from benchmarks.studies.norms_and_skips.training import DRAWN, Trajectory
from rsam.curvature.landscape import Plane

__all__ = ["draw_densities", "draw_landscapes", "draw_through_training"]

#: By depth.
Depths = Mapping[int, Networks]

_COLOURS = dict(zip(VARIANTS, (COLOURS[5], COLOURS[2], COLOURS[4], COLOURS[1]), strict=True))
#: Of the greatest density, below which are tails of bumps.
_FLOOR = 1e-6
_CURVES: dict[str, tuple[str, ...]] = {
    "curvature": ("unit_trace", "trace", "eigenvalue_1", "negative"),
    "gradient": ("range", "change", "smoothness"),
    "learning": ("train_loss", "test_error", "gap"),
}
_TRAIN_LOSS = Measure("training loss", lambda checkpoint: checkpoint.scores["train_loss"])
_SCORES = (_TRAIN_LOSS, MEASURES["test_error"], MEASURES["gap"])


def draw_landscapes(depths: Depths, path: Path) -> bool:
    """Draw the landscapes side by side at one scale, one row per depth; return False if there is none."""
    drawn = {
        (depth, v): _plane(t)
        for depth, networks in depths.items()
        for v in VARIANTS
        if (t := networks.get((v, DRAWN))) is not None and t.plane
    }
    losses = np.concatenate([plane.loss.ravel() for plane in drawn.values()]) if drawn else np.empty(0)
    losses = losses[np.isfinite(losses) & (losses > 0)]
    if not losses.size:
        return False
    rows = sorted({depth for depth, _ in drawn})
    # the lower end belongs to a minimum; the upper one to a corner, and most corners are far above all else
    limits = float(np.min(losses)), float(np.quantile(losses, 0.98))
    with drawing(path, 1.3 + 1.1 * len(rows)) as figure:
        panels = figure.subplots(len(rows), len(VARIANTS), sharex=True, sharey=True, squeeze=False)
        for row, depth in zip(panels, rows, strict=True):
            for axes, v in zip(row, VARIANTS, strict=True):
                if (depth, v) in drawn:
                    drawn[depth, v].plot(axes, levels=18, limits=limits, log=True, colorbar=False)
                axes.set(xlabel="", ylabel="", aspect="equal", title=fill(v.label, 12) if depth == rows[0] else "")
            row[0].set_ylabel(f"{depth} layers")
        figure.colorbar(
            ScalarMappable(LogNorm(*limits), "viridis"),
            ax=panels,
            label=f"loss on {CURVATURE} training images",
            format="%.3g",
            aspect=40,
            location="bottom",  # beside them it would take the width of one
        )
    return True


def _plane(trajectory: Trajectory) -> Plane:
    loss = np.array(trajectory.plane, dtype=np.float64)  # None becomes nan
    x, y = (np.linspace(-EXTENT, EXTENT, count) for count in loss.shape)
    return Plane(loss, (float("nan"),) * 2, "filter norms", {}, x, y)


def draw_through_training(depths: Depths, kind: str, path: Path) -> None:
    """Draw measures against epochs, mean and 95 % interval over the seeds.

    Parameters
    ----------
    depths : mapping of int to Networks
        The networks.
    kind : {"curvature", "gradient", "learning"}
        Which measures.
    path : Path
        The image to write.
    """
    measures = [MEASURES.get(name, _TRAIN_LOSS) for name in _CURVES[kind]]
    with drawing(path, 1.7 * len(measures) + 0.9) as figure:
        panels = figure.subplots(len(measures), len(depths), sharex=True, sharey="row", squeeze=False)
        for row, measure in zip(panels, measures, strict=True):
            for axes, networks in zip(row, depths.values(), strict=True):
                for v in VARIANTS:
                    _draw_curve(axes, [t for (u, _), t in networks.items() if u == v], measure, v)
                axes.grid(alpha=0.3)
                if measure.log:
                    axes.set_yscale("log")
                if measure is _TRAIN_LOSS:  # within a decade
                    axes.yaxis.set(major_formatter="{x:g}", minor_formatter="{x:g}")
            row[0].set_ylabel(fill(measure.label, 20), fontsize="small")
        for axes, depth in zip(panels[0], depths, strict=True):
            axes.set_title(f"{depth} layers")
        for axes in panels[-1]:
            axes.set_xlabel("epoch")
        figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize="small")


def _draw_curve(axes: Any, networks: Sequence[Trajectory], measure: Measure, variant: Variant) -> None:
    """Draw one variant where most networks have a value; before the first step scores of batch norm mean nothing."""
    by_epoch: dict[int, list[float]] = {}
    for trajectory in networks:
        for checkpoint in trajectory.checkpoints:
            value = measure.value(checkpoint)
            if value is not None and (checkpoint.epoch or measure not in _SCORES):
                by_epoch.setdefault(checkpoint.epoch, []).append(value)
    epochs = sorted(epoch for epoch, values in by_epoch.items() if 2 * len(values) > len(networks))
    intervals = [t_interval(by_epoch[epoch]) for epoch in epochs]
    back = np.exp if measure.log else np.asarray
    mean, low, high = (back([getattr(i, name) for i in intervals]) for name in ("mean", "low", "high"))
    colour = _COLOURS[variant]
    axes.plot(epochs, mean, marker=".", color=colour, label=variant.label)
    axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)


def draw_densities(depths: Depths, path: Path) -> bool:
    """Draw the densities of eigenvalues of one seed, one row per time; return False if there is none."""
    drawn = {
        (checkpoint.epoch, depth, v): checkpoint.density
        for depth, networks in depths.items()
        for (v, seed), t in networks.items()
        if seed == DRAWN
        for checkpoint in t.checkpoints
        if checkpoint.density
    }
    epochs = sorted({epoch for epoch, *_ in drawn})
    if not epochs:
        return False
    with drawing(path, 1.7 * len(epochs) + 0.9) as figure:
        panels = figure.subplots(len(epochs), len(depths), sharey=True, squeeze=False)
        for (epoch, depth, v), density in drawn.items():
            axes = panels[epochs.index(epoch)][list(depths).index(depth)]
            values = np.array(density["density"], dtype=np.float64)
            grid = np.linspace(density["low"], density["high"], len(values))
            visible = np.where(values > _FLOOR * np.nanmax(values), values, np.nan)
            axes.plot(grid, visible, color=_COLOURS[v], label=v.label, linewidth=1)
            axes.set_yscale("log")  # and not the other axis, which would widen the bump of the smallest eigenvalues
            axes.grid(alpha=0.3)
        for row, epoch in zip(panels, epochs, strict=True):
            row[0].set_ylabel(f"density after epoch {epoch}", fontsize="small")
        for axes, depth in zip(panels[0], depths, strict=True):
            axes.set_title(f"{depth} layers")
        for axes in panels[-1]:
            axes.set_xlabel("eigenvalue")
        handles = {label: h for axes in panels.flat for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2, fontsize="small")
    return True
