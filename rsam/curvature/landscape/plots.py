"""Draw lines, contours and surfaces of a loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from rsam.evaluation.optional import optional
from rsam.evaluation.parameters import as_integer

__all__ = ["draw_contours", "draw_line", "draw_surface"]

_COLOURS = "viridis"


def draw_line(
    ax: Any, x: np.ndarray, values: np.ndarray, unit: str, label: str, log: bool, options: dict[str, Any]
) -> Any:
    """Draw values along a line."""
    _visible(values, log)
    ax = _axes() if ax is None else ax
    ax.plot(x, np.where(np.isfinite(values), values, np.nan), **options)
    if log:
        ax.set_yscale("log")
    ax.set(xlabel=unit, ylabel=label)
    ax.grid(alpha=0.25, linewidth=0.6)
    return ax


def draw_contours(
    ax: Any,
    x: np.ndarray,
    y: np.ndarray,
    values: np.ndarray,
    unit: str,
    label: str,
    levels: int,
    limits: tuple[float, float] | None,
    log: bool,
    colorbar: bool,
    path: np.ndarray | None,
) -> Any:
    """Draw filled contours, and a path over them."""
    levels = as_integer("levels", levels, 2)
    colors = optional("matplotlib.colors", "plotting")
    low, high = _limits(values, limits, log)
    steps = np.geomspace(low, high, levels) if log else np.linspace(low, high, levels)
    norm = (colors.LogNorm if log else colors.Normalize)(low, high)
    ax = _axes() if ax is None else ax
    masked = np.ma.masked_where(~_visible(values, log), values)
    filled = ax.contourf(x, y, masked.T, levels=steps, norm=norm, cmap=_COLOURS, extend=_beyond(masked, low, high))
    ax.contour(x, y, masked.T, levels=steps, colors="white", linewidths=0.4, alpha=0.5)
    if path is not None:
        ax.plot(path[:, 0], path[:, 1], color="white", marker="o", markersize=3, linewidth=1.2)
    ax.plot(0, 0, color="black", marker="+", markersize=9)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    ax.set(xlabel=f"first direction, {unit}", ylabel=f"second direction, {unit}")
    if colorbar:
        ax.figure.colorbar(filled, ax=ax, label=label, format="%.3g")
    return ax


def draw_surface(
    ax: Any,
    x: np.ndarray,
    y: np.ndarray,
    values: np.ndarray,
    unit: str,
    label: str,
    limits: tuple[float, float] | None,
    log: bool,
    colorbar: bool,
) -> Any:
    """Draw a surface; its heights are logarithms if asked, since matplotlib's axes in space are not."""
    ends = np.array(_limits(values, limits, log))
    heights = np.where(_visible(values, log), values, np.nan)
    if log:
        ends, heights = np.log10(ends), np.log10(heights)
    if ax is None:
        ax = _axes(projection="3d")
    elif not hasattr(ax, "plot_surface"):
        raise ValueError('a surface needs axes made with projection="3d"')
    surface = ax.plot_surface(
        *np.meshgrid(x, y, indexing="ij"),
        heights.clip(*ends),
        cmap=_COLOURS,
        vmin=ends[0],
        vmax=ends[1],
        rcount=len(x),
        ccount=len(y),
        linewidth=0,
    )
    ax.set_zlim(*ends)
    ax.set(xlabel=f"first direction, {unit}", ylabel=f"second direction, {unit}", zlabel=label)
    if colorbar:
        ax.figure.colorbar(surface, ax=ax, label=label, shrink=0.6, pad=0.12)
    return ax


def _beyond(values: np.ma.MaskedArray, low: float, high: float) -> str:
    """Return which ends of the range there are values beyond, in matplotlib's words."""
    below, above = bool(values.min() < low), bool(values.max() > high)
    return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")


def _axes(**options: Any) -> Any:
    """Return axes of a new figure, made without pyplot: no window, no state of its own."""
    figure = optional("matplotlib.figure", "plotting").Figure(layout="constrained")
    return figure.add_subplot(**options)


def _visible(values: np.ndarray, log: bool) -> np.ndarray:
    """Return where there is something to draw; raise if there is nothing."""
    visible: np.ndarray = np.isfinite(values) & (values > 0 if log else True)
    if not visible.any():
        raise ValueError(f"there is nothing to draw: no value is finite{' and positive' if log else ''}")
    return visible


def _limits(values: np.ndarray, limits: tuple[float, float] | None, log: bool) -> tuple[float, float]:
    shown = values[_visible(values, log)]
    low, high = (float(shown.min()), float(shown.max())) if limits is None else limits
    if limits is not None and not (np.isfinite(limits).all() and low < high and (low > 0 or not log)):
        raise ValueError(f"limits must be two rising finite {'positive ' if log else ''}numbers, got {limits}")
    if high - low <= 1e-12 * abs(high):  # a flat landscape
        low, high = low - 1e-6 * (abs(low) or 1.0), high + 1e-6 * (abs(high) or 1.0)
    return low, high
