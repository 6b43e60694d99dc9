"""Plot margins through training, and predicted against true gaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rsam.evaluation.parameters import as_integer
from rsam.margins.network import INPUT, OUTPUT

__all__ = ["plot_gaps", "plot_margins"]

_BLUE, _RED, _GREY = "#2a6f97", "#c1440e", "#666666"
_BANDS = ((0.05, 0.95, 0.15, "90 % of examples"), (0.25, 0.75, 0.35, "50 % of examples"))


def plot_margins(checkpoints: Mapping[float, Mapping[str, Tensor]], *, xlabel: str = "epoch", columns: int = 4) -> Any:
    """Draw how the distributions of margins change through training, one panel for each layer.

    Parameters
    ----------
    checkpoints : mapping of float to mapping of str to Tensor
        For each epoch (or step) the result of :func:`margins`.
    xlabel : str
        Label of the axis of checkpoints.
    columns : int
        Largest number of panels in a row.

    Returns
    -------
    matplotlib.figure.Figure
        Figure with bands between quantiles, the median, and a line at 0, below which classifications are wrong. Save it
        with ``figure.savefig``.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        For fewer than two checkpoints, margins of none, checkpoints of different layers, or bad ``columns``.

    Examples
    --------
    >>> import torch, rsam
    >>> checkpoints = {epoch: {"input": torch.randn(100) + epoch} for epoch in range(3)}
    >>> figure = rsam.margins.plot_margins(checkpoints)
    """
    if any(isinstance(margins, Tensor) for margins in checkpoints.values()):
        raise ValueError("checkpoints must map each epoch to a result of margins(), not layers to margins")
    if len(checkpoints) < 2:
        raise ValueError(f"checkpoints must be two at least, got {len(checkpoints)}")
    times = sorted(checkpoints)
    layers = list(checkpoints[times[0]])
    for time in times:
        if list(checkpoints[time]) != layers:
            raise ValueError(f"checkpoint {time} has layers {list(checkpoints[time])}, but the first has {layers}")
    columns = min(as_integer("columns", columns, 1), len(layers))
    rows = -(-len(layers) // columns)
    figure, axes = _figure(rows, columns, (3.0 * columns + 0.6, 2.6 * rows + 0.5))
    for panel, layer in zip(axes, layers, strict=False):
        values = [checkpoints[time][layer].detach().to("cpu").double().numpy() for time in times]
        for low, high, alpha, label in _BANDS:
            ends = np.array([np.quantile(v, [low, high]) for v in values])
            panel.fill_between(times, ends[:, 0], ends[:, 1], color=_BLUE, alpha=alpha, linewidth=0, label=label)
        panel.plot(times, [np.median(v) for v in values], color=_BLUE, linewidth=1.8, label="median")
        panel.axhline(0, color=_RED, linewidth=1, linestyle="--", label="decision boundary")
        panel.set_title(layer if layer in (INPUT, OUTPUT) else f"layer {layer}", fontsize=10)
        panel.set_xlim(times[0], times[-1])
        panel.set_xlabel(xlabel)
        _clean(panel)
    for panel in axes[len(layers) :]:
        panel.set_visible(False)
    for panel in axes[::columns]:
        panel.set_ylabel("margin")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def plot_gaps(
    predicted: Sequence[float] | np.ndarray,
    gaps: Sequence[float] | np.ndarray,
    groups: Sequence[Any] | np.ndarray | None = None,
    *,
    title: str = "",
) -> Any:
    """Draw predicted against true generalisation gaps.

    Parameters
    ----------
    predicted : sequence of float
        Predictions, such as those of :meth:`GapModel.held_out`.
    gaps : sequence of float
        True gaps.
    groups : sequence, optional
        Group of each network, such as its configuration, shown by colour; up to ten different ones.
    title : str
        Title, above the plot beside the coefficient of determination.

    Returns
    -------
    matplotlib.figure.Figure
        Figure with the line on which predictions are right.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        For unequal lengths, and for more than ten groups.

    Examples
    --------
    >>> import rsam
    >>> figure = rsam.margins.plot_gaps([0.1, 0.22, 0.28], [0.1, 0.2, 0.3], groups=["small", "small", "large"])
    """
    x, y = np.asarray(gaps, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    g = np.zeros(len(x), dtype=int) if groups is None else np.asarray(groups)
    if x.ndim != 1 or x.shape != y.shape or x.shape != g.shape or not len(x):
        raise ValueError(f"predicted, gaps and groups must be as many numbers, got {y.shape}, {x.shape} and {g.shape}")
    kinds = list(dict.fromkeys(g.tolist()))
    if len(kinds) > 10:
        raise ValueError(f"groups are {len(kinds)} different ones, whose colours cannot be told apart; pass up to ten")
    figure, (axes,) = _figure(1, 1, (4.6, 4.6))
    ends = np.array([min(np.min(x), np.min(y)), max(np.max(x), np.max(y))])
    ends += np.array([-0.05, 0.05]) * max(ends[1] - ends[0], 1e-9)
    axes.plot(ends, ends, color=_GREY, linewidth=1, linestyle="--", zorder=1)
    for i, kind in enumerate(kinds):
        chosen = g == kind
        colour = _BLUE if groups is None else f"C{i}"
        label = None if groups is None else str(kind)
        axes.scatter(x[chosen], y[chosen], s=22, color=colour, alpha=0.75, linewidths=0, label=label, zorder=2)
    axes.set(xlim=ends, ylim=ends, xlabel="true gap (train − test accuracy)", ylabel="predicted gap")
    axes.set_aspect("equal")
    spread = ((x - x.mean()) ** 2).sum()
    explained = f"$R^2$ = {1 - ((x - y) ** 2).sum() / spread:.2f}, " if spread > 0 else ""
    axes.set_title(f"{title}{': ' if title else ''}{explained}{len(x)} networks", fontsize=10)
    if groups is not None:
        axes.legend(frameon=False, fontsize=9, loc="upper left")
    _clean(axes)
    return figure


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    try:
        from matplotlib.figure import Figure  # without pyplot, which has global state and opens windows
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'rsam[margins]'") from error
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _clean(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.25, linewidth=0.6)
