"""Figures of learning curves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.run import Row

# Okabe and Ito's colours, which the colour-blind can tell apart
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7")


def draw_learning_curves(rows: Mapping[str, Sequence[Row]], path: Path, title: str) -> None:
    """Draw train loss, train and held-out accuracy against epochs: each seed thin, their mean thick.

    Parameters
    ----------
    rows : mapping of str to sequence of Row
        Label of each method, and its rows of equal length.
    path : Path
        The image to write.
    title : str
        Over the figure.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 3)
    for colour, (label, of_method) in zip(itertools.cycle(COLOURS), rows.items(), strict=False):
        curves = {
            "train loss (noisy labels)": np.array([row.curves["train_loss"] for row in of_method]),
            "train accuracy, % (noisy labels)": 100 * np.array([row.curves["train_accuracy"] for row in of_method]),
            f"{of_method[0].run.heldout} accuracy, %": 100 * np.array([row.curves["accuracy"] for row in of_method]),
        }
        for axes, (name, seeds) in zip(panels, curves.items(), strict=True):
            epochs = np.arange(1, seeds.shape[1] + 1)
            axes.set(xlabel="epoch", title=name)
            axes.plot(epochs, seeds.T, color=colour, linewidth=0.5, alpha=0.5)
            axes.plot(epochs, seeds.mean(axis=0), color=colour, linewidth=2, label=label)
    for axes in panels:
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, dpi=150)
