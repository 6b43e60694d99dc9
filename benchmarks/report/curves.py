"""Draw learning curves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.report.svg import drawing
from benchmarks.run import Row

__all__ = ["COLOURS", "draw_learning_curves"]

# Okabe and Ito's colours, which the colour-blind can tell apart
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7")


def draw_learning_curves(rows: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw train loss, train and held-out accuracy against epochs: means over the networks that did not diverge.

    Parameters
    ----------
    rows : mapping of str to sequence of Row
        Label of each method, and its rows of equal length.
    path : Path
        The SVG file to write.
    """
    panels = {
        "train loss": ("train_loss", 1),
        "train accuracy, %": ("train_accuracy", 100),
        "test accuracy, %": ("accuracy", 100),
    }
    with drawing(path, 7) as figure:
        grid = figure.subplots(3, 1, sharex=True)
        for colour, (label, of_method) in zip(itertools.cycle(COLOURS), rows.items(), strict=False):
            trained = [row for row in of_method if not row.diverged]
            for axes, (name, unit) in zip(grid, panels.values(), strict=True):
                if trained:
                    mean = unit * np.mean([row.curves[name] for row in trained], axis=0)
                    axes.plot(np.arange(1, len(mean) + 1), mean, color=colour, label=label)
        for axes, title in zip(grid, panels, strict=True):
            axes.set_ylabel(title)
            axes.grid(alpha=0.3)
        grid[0].set_yscale("log")
        grid[-1].set_xlabel("epoch")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
