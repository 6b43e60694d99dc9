"""Draw the picture of the study: accuracy against gradient evaluations, and against processor time."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.report.curves import COLOURS
from benchmarks.report.svg import drawing
from benchmarks.studies.cheap.findings import Findings
from benchmarks.studies.cheap.rules import MARGIN, MOST_EVALUATIONS
from benchmarks.studies.cheap.variants import VARIANTS, Family, Kernels

__all__ = ["draw"]

_STYLES: dict[Family, tuple[str, str]] = {
    "no ascent": (COLOURS[0], "o"),
    "whole batch": (COLOURS[5], "s"),
    "part": (COLOURS[4], "^"),
    "some steps": (COLOURS[1], "v"),
    "part, some steps": (COLOURS[3], "D"),
    "late": (COLOURS[2], ">"),
    "momentum": (COLOURS[6], "<"),
    "Friendly SAM": ("#7F5F00", "P"),
    "peer": ("#888888", "X"),
}
#: Lowest end of the axis of differences, in points: one that collapses would press all others together.
_LOWEST = -4.0
_TITLES: dict[Kernels, str] = {"spheres": "kernels on spheres", "plain": "plain weights"}


def draw(findings: Findings, path: Path) -> None:
    """Draw one row per kind of kernels, with intervals; without times where they are not measured."""
    with drawing(path, 6.4) as figure:
        panels = figure.subplots(2, 2, sharex="col", sharey="row")
        for row, (kernels, title) in zip(panels, _TITLES.items(), strict=True):
            for axes, by_time in zip(row, (False, True), strict=True):
                _draw_panel(axes, findings, kernels, by_time)
            row[0].set_title(title, loc="left")
            row[0].set_ylabel("test accuracy minus that of\nthe whole batch, points")
        panels[1][0].set_xlabel("gradient evaluations\nper step")
        panels[1][1].set_xlabel("processor time per step\n(no ascent = 1)")
        handles, labels = panels[1][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, columnspacing=1, handletextpad=0.3)


def _draw_panel(axes: Axes, findings: Findings, kernels: Kernels, by_time: bool) -> None:
    drawn: set[str] = set()
    for variant in VARIANTS:
        x = findings.time(variant) if by_time else findings.mean_evaluations(variant)
        if variant.kernels != kernels or variant.rho == "transferred" or x is None:
            continue
        interval = findings.minus_whole(variant)
        colour, marker = _STYLES[variant.family]
        label = "" if variant.family in drawn else variant.family
        if interval.mean < _LOWEST:
            axes.annotate(
                f"{interval.mean:.0f}", (x, _LOWEST), (0, 14), textcoords="offset points", ha="center", color=colour,
                arrowprops={"arrowstyle": "->", "color": colour},
            )  # fmt: skip
            axes.set_ylim(bottom=_LOWEST)
            continue
        drawn.add(variant.family)
        axes.errorbar(
            x, interval.mean, yerr=interval.half_width, fmt=marker, color=colour, markersize=4.5, capsize=2,
            elinewidth=0.8, label=label,
        )  # fmt: skip
    axes.axhline(0, color="grey", linewidth=0.8, zorder=0)
    axes.axhline(-MARGIN, color="black", linestyle="--", linewidth=0.8, zorder=0)
    if not by_time:
        axes.axvline(MOST_EVALUATIONS, color="black", linestyle=":", linewidth=0.8, zorder=0)
    axes.grid(alpha=0.3)
