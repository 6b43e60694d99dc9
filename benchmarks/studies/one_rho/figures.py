"""The picture of the study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.colors import PowerNorm

from benchmarks.report.svg import drawing

__all__ = ["Block", "draw_regrets"]

#: Points at which colours end, and from which on numbers are white.
_MOST, _DARK = 10.0, 3.5


@dataclass(frozen=True)
class Block:
    """Rows of the picture under a title.

    Attributes
    ----------
    title : str
        Above the rows.
    labels : sequence of str
        One per row.
    regrets : sequence of sequence of float
        Rows of one number per method.
    """

    title: str
    labels: Sequence[str]
    regrets: Sequence[Sequence[float]]


def draw_regrets(blocks: Sequence[Block], methods: Sequence[str], path: Path) -> None:
    """Draw regrets as numbers on coloured cells, one column per method.

    Parameters
    ----------
    blocks : sequence of Block
        From the top.
    methods : sequence of str
        Labels of the columns.
    path : Path
        The SVG file to write.
    """
    rows = sum(len(block.labels) + 1 for block in blocks)
    with drawing(path, 1.3 + 0.17 * rows) as figure:
        heights = [len(block.labels) for block in blocks]
        panels = figure.subplots(len(blocks), squeeze=False, height_ratios=heights)[:, 0]
        for axes, block in zip(panels, blocks, strict=True):
            values = np.array(block.regrets)
            norm = PowerNorm(0.5, 0, _MOST, clip=True)  # a point more matters most where there are few
            axes.imshow(values.clip(0), cmap="Blues", norm=norm, aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                colour = "white" if value > _DARK else "black"
                text = f"{max(value, 0.0):.1f}" if value < _MOST else f"{value:.0f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
            axes.set_yticks(range(len(block.labels)), block.labels, fontsize=8)
            axes.set_xticks([])
            axes.set_title(block.title, loc="left", fontsize=9)
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
        panels[0].xaxis.set_ticks_position("top")
        panels[0].set_xticks(range(len(methods)), [fill(label, 14) for label in methods], rotation=90, fontsize=8)
        panels[-1].set_xlabel("points below the best of all methods and radii", fontsize=9)
