"""Draw forest plots: intervals one below the other, each with its verdict beside it."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.markers import CARETLEFT, CARETRIGHT
from matplotlib.transforms import blended_transform_factory

from benchmarks.report.intervals import AsymmetricInterval, Interval, judged
from benchmarks.report.svg import WIDTH, drawing

__all__ = ["Group", "Line", "draw_forest"]

#: The verdicts of :func:`judged`, in colours that the colour-blind can tell apart, and what has none.
_COLOURS = {"better": "#0072B2", "worse": "#C04A00", "undecided": "#444444", "beside": "#888888"}
_ARROWS = (CARETLEFT, CARETRIGHT)
_LINE = 0.195  # inches
_GAP = 0.4  # lines above a title
_BELOW = 0.5  # inches that an axis and its name take, in one line
_LABEL, _TITLE, _UNIT = 26, 46, 40  # characters that have room in a line


@dataclass(frozen=True)
class Line:
    """Interval of a forest plot.

    Attributes
    ----------
    label : str
        At the left.
    interval : Interval or AsymmetricInterval
        Where its ends are nan, only the estimate is drawn; nothing where that is nan too.
    verdict : str, optional
        At the right, a word or a number; by default what :func:`~benchmarks.report.intervals.judged` says.
    tone : {"better", "worse", "undecided", "beside"}, optional
        Chooses the colour; by default what :func:`~benchmarks.report.intervals.judged` says.
    values : sequence of float
        Drawn as dots behind the interval.
    """

    label: str
    interval: Interval | AsymmetricInterval
    verdict: str | None = None
    tone: str | None = None
    values: Sequence[float] = ()


@dataclass(frozen=True)
class Group:
    """Lines under a title.

    Attributes
    ----------
    title : str
        Above the lines.
    lines : sequence of Line
        From the top.
    unit : str
        Of the axis below; groups of one unit that follow each other share an axis.
    verdict : str
        At the right of the title: on the group as a whole.
    mark : float, optional
        What is asked of the lines: a dashed line across them.
    limits : (float, float), optional
        Ends of the axis, at which longer intervals turn into arrows; by default it is as long as the intervals are.
    """

    title: str
    lines: Sequence[Line]
    unit: str
    verdict: str = ""
    mark: float | None = None
    limits: tuple[float, float] | None = None


def draw_forest(groups: Sequence[Group], path: Path, *, log: bool = False) -> None:
    """Draw intervals, and where there is no difference; verdicts stand beside them as words, not in colour alone.

    Parameters
    ----------
    groups : sequence of Group
        At least one, from the top.
    path : Path
        The SVG file to write.
    log : bool
        Whether numbers are ratios, on a logarithmic axis: no difference is then at 1 and not at 0.

    Examples
    --------
    >>> import tempfile
    >>> lines = [Line("spheres", Interval(0.5, 0.2)), Line("Stiefel", Interval(0.1, 0.3))]
    >>> path = Path(tempfile.mkdtemp(), "answer.svg")
    >>> draw_forest([Group("RSAM − SAM", lines, "points of test accuracy")], path)
    >>> path.read_text().count("better"), path.read_text().count("undecided")
    (1, 1)
    """
    panels = [list(of_unit) for _, of_unit in itertools.groupby(groups, key=lambda group: group.unit)]
    sizes = [sum(map(_size, panel)) for panel in panels]
    below = [_BELOW + _LINE * (len(_unit(panel)) - 1) for panel in panels]
    with drawing(path, _LINE * sum(sizes) + sum(below)) as figure:
        grid = figure.subplots(len(panels), squeeze=False, height_ratios=sizes)[:, 0]
        for axes, panel in zip(grid, panels, strict=True):
            if log:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter("{x:g}")
            _draw_panel(axes, panel)
            axes.axvline(1 if log else 0, color="grey", linewidth=0.8, zorder=0)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]


def _unit(groups: Sequence[Group]) -> list[str]:
    """Name an axis, and what its dashed lines are."""
    dashed = "; dashed: threshold" if any(group.mark is not None for group in groups) else ""
    return _wrapped(groups[0].unit + dashed, _UNIT)


def _size(group: Group) -> float:
    """Count the lines of text that a group takes, its title included."""
    return _GAP + len(_title(group)) + sum(len(_wrapped(line.label, _LABEL)) for line in group.lines)


def _title(group: Group) -> list[str]:
    return _wrapped(group.title, _TITLE - len(group.verdict)) if group.title or group.verdict else []


def _draw_panel(axes: Axes, groups: Sequence[Group]) -> None:
    y, heights, lines = 0.0, [], []
    limits = next((group.limits for group in groups if group.limits), (-math.inf, math.inf))
    if math.isfinite(limits[0]):
        axes.set_xlim(limits)
    for group in groups:
        y += _GAP
        _write_title(axes, group, y)
        y += len(_title(group))
        start = y
        for line in group.lines:
            size = len(_wrapped(line.label, _LABEL))
            heights.append(y + (size - 1) / 2)
            lines.append(line)
            y += size
        if group.mark is not None:
            axes.plot([group.mark] * 2, [start - 0.5, y - 0.5], "--", color="black", linewidth=0.9)
    for height, line in zip(heights, lines, strict=True):
        colour = _COLOURS[line.tone or judged(line.interval)]
        axes.plot(line.values, [height] * len(line.values), ".", color=colour, alpha=0.3, markersize=4)
        _draw_interval(axes, line.interval, height, colour, limits)
    axes.set_ylim(y - 0.5, -0.5)
    axes.set_yticks(heights, ["\n".join(_wrapped(line.label, _LABEL)) for line in lines])
    axes.set_xlabel("\n".join(_unit(groups)))
    axes.grid(alpha=0.3, axis="x")
    axes.spines["left"].set_visible(False)
    _write_verdicts(axes, heights, lines)
    axes.tick_params(axis="y", length=0)


def _draw_interval(
    axes: Axes, interval: Interval | AsymmetricInterval, height: float, colour: str, limits: tuple[float, float]
) -> None:
    """Draw an interval as far as the axis goes, with an arrow where it goes on."""
    estimate, low, high = np.clip((interval.estimate, interval.low, interval.high), *limits)
    point = "o" if estimate == interval.estimate else "none"
    reach = [[estimate - low], [high - estimate]]
    axes.errorbar(estimate, height, xerr=reach, fmt=point, capsize=2, markersize=4, color=colour)
    for end, beyond, arrow in zip(limits, (interval.low < limits[0], interval.high > limits[1]), _ARROWS, strict=True):
        if beyond:
            axes.plot(end, height, marker=arrow, color=colour, clip_on=False)


def _write_title(axes: Axes, group: Group, y: float) -> None:
    """Write across the whole figure, where no line is."""
    where = blended_transform_factory(axes.figure.transFigure, axes.transData)
    title = _title(group)
    options: dict[str, Any] = {"transform": where, "va": "center", "weight": "bold", "in_layout": False}
    options["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the lines of the grid
    axes.text(0.05 / WIDTH, y + (len(title) - 1) / 2, "\n".join(title), **options)
    axes.text(1 - 0.05 / WIDTH, y, group.verdict, ha="right", **options)


def _write_verdicts(axes: Axes, heights: Sequence[float], lines: Sequence[Line]) -> None:
    right = axes.secondary_yaxis("right")
    words = [judged(line.interval) if line.verdict is None else line.verdict for line in lines]
    right.set_yticks(heights, words)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    for text, line in zip(right.get_yticklabels(), lines, strict=True):
        text.set_color(_COLOURS[line.tone or judged(line.interval)])
