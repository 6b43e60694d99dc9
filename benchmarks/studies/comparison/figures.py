"""What the figures of comparisons have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from benchmarks.report.intervals import t_interval

__all__ = ["draw_interval", "label_rows"]


def draw_interval(axes: Axes, place: float, values: Sequence[float], **options: Any) -> None:
    """Draw the mean of differences at a height, with its 95 % interval."""
    interval = t_interval(values)
    axes.errorbar(interval.mean, place, xerr=interval.half_width, fmt="o", capsize=2, **options)


def label_rows(axes: Axes, labels: Sequence[str], **options: Any) -> None:
    """Name the heights 0, 1, ... from the top, and mark where there is no difference."""
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels, **options)
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
