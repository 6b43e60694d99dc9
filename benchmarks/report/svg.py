"""Draw figures of one width, as SVG files that are the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

__all__ = ["WIDTH", "drawing"]

#: Inches: 442 pixels, which a phone that is 390 pixels wide shrinks by a fifth, so that letters stay legible.
WIDTH = 4.6
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def drawing(path: Path, height: float) -> Iterator[Figure]:
    """Give a figure to draw on, and write it without its date, its parts named after the file.

    Parameters
    ----------
    path : Path
        The SVG file to write.
    height : float
        Inches.

    Yields
    ------
    Figure
        As wide as all figures are, with their letters.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": path.stem}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure
        figure.savefig(path, metadata={"Date": None})
