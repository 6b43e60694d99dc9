"""Figures as SVG files that are the same bytes for the same numbers."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

__all__ = ["save_svg"]


def save_svg(figure: Figure, path: Path) -> None:
    """Write a figure without its date, and with names of its parts that follow from the file's."""
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})
