"""Summarise margin distributions by vectors of named numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import geoopt
import numpy as np
import torch
from torch import Tensor

from rsam.errors import NotFinite

__all__ = ["Kind", "Log", "Statistics", "as_matrix", "check_options", "recorded", "statistics"]

Kind = Literal["fences", "quartiles", "moments"]
Log = Literal["drop", "signed"] | None

_NAMES = {
    "fences": ("Q1", "median", "Q3", "lower fence", "upper fence"),
    "quartiles": ("Q1", "median", "Q3"),
    "moments": ("mean", "standard deviation", "skewness", "kurtosis"),
}


@dataclass(frozen=True, eq=False)
class Statistics:
    """Vector of statistics with a name for each number.

    Attributes
    ----------
    names : tuple of str
        Names, such as ``"input: median"``.
    values : numpy.ndarray
        The numbers, in double precision.
    measured : str, optional
        How the margins were measured, if that is known: if they are what :func:`margins`, :func:`distances` or
        :func:`kv_margins` returned, not computed from it. :class:`GapModel` refuses features that were measured
        differently.

    Raises
    ------
    ValueError
        Unless there is one number for each name.

    Examples
    --------
    >>> import numpy as np, torch, rsam
    >>> margins = torch.tensor([1.0, 2.0, 3.0])
    >>> quartiles = rsam.margins.statistics({"input": margins}, "quartiles")
    >>> both = quartiles + rsam.margins.Statistics(("depth",), np.array([4.0]))
    >>> len(both), both.names[-1], both.values
    (4, 'depth', array([1.5, 2. , 2.5, 4. ]))
    """

    names: tuple[str, ...]
    values: np.ndarray
    measured: str | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.values)
        if shape != (len(self.names),):
            raise ValueError(f"values must be one number for each of {len(self.names)} names, got shape {shape}")

    def __add__(self, other: Statistics) -> Statistics:
        """Concatenate two vectors of statistics."""
        measured = " + ".join(dict.fromkeys(m for m in (self.measured, other.measured) if m)) or None
        return Statistics(self.names + other.names, np.concatenate((self.values, other.values)), measured)

    def __len__(self) -> int:
        return len(self.names)


def statistics(margins: Mapping[str, Tensor] | Tensor, kind: Kind = "fences", *, log: Log = None) -> Statistics:
    r"""Summarise margin distributions by a vector of statistics, layer after layer.

    Parameters
    ----------
    margins : mapping of str to Tensor, or Tensor
        As :func:`margins` returns them, or those of one layer.
    kind : {"fences", "quartiles", "moments"}
        ``"quartiles"``: first quartile, median, third quartile, interpolated. ``"fences"``: these and Tukey's fences
        :math:`Q_1 - 1.5\,(Q_3 - Q_1)` and :math:`Q_3 + 1.5\,(Q_3 - Q_1)`, which a linear model cannot tell from the
        quartiles, of which they are linear combinations. Jiang et al. (2019) take the outermost margins within these
        fences instead, which are no such combinations. ``"moments"``: mean, standard deviation, skewness and kurtosis
        (3 for a normal distribution).
    log : {"drop", "signed"}, optional
        Summarise logarithms instead of the margins themselves. A negative margin, of a wrong classification, has no
        logarithm, nor has a margin of zero, of a tie. With ``"drop"`` both are left out, as by Jiang et al., so that
        the vector does not depend on their number; with ``"signed"`` each margin :math:`m` is replaced by
        :math:`\mathrm{sign}(m) \log(1 + |m|)`.

    Returns
    -------
    Statistics
        Named vector; ``a + b`` concatenates two.

    Raises
    ------
    TypeError, ValueError
        For bad options, a layer whose margins are no tensor, one without margins (with ``log="drop"``, without
        positive ones), and moments of margins that are all equal.
    NotFinite
        If margins are not finite.

    Examples
    --------
    >>> import torch, rsam
    >>> margins = {"input": torch.tensor([-1.0, 1.0, 2.0, 3.0, 4.0])}
    >>> found = rsam.margins.statistics(margins)
    >>> found.names
    ('input: Q1', 'input: median', 'input: Q3', 'input: lower fence', 'input: upper fence')
    >>> found.values
    array([ 1.,  2.,  3., -2.,  6.])
    >>> rsam.margins.statistics(margins, "quartiles", log="drop").names
    ('input: log Q1', 'input: log median', 'input: log Q3')
    """
    check_options(kind, log)
    layers = dict(margins) if isinstance(margins, Mapping) else {"margins": margins}
    for layer, m in layers.items():
        if not isinstance(m, Tensor):
            raise TypeError(f"margins of layer {layer!r} must be a tensor (examples,), got {type(m).__name__}")
    if not layers:
        raise ValueError("margins is empty; it must have at least one layer")
    what = {None: "", "drop": "log ", "signed": "signed log "}[log]
    names = tuple(f"{layer}: {what}{name}" for layer in layers for name in _NAMES[kind])
    values = np.concatenate([_of_layer(layer, m, kind, log) for layer, m in layers.items()])
    records = [getattr(m, "measured", None) for m in layers.values()]
    return Statistics(names, values, " + ".join(dict.fromkeys(filter(None, records))) or None)


def recorded(
    by_layer: dict[str, Tensor],
    manifolds: Mapping[str, geoopt.Manifold] | None,
    subspaces: Mapping[str, Tensor] | None,
    **options: Any,
) -> dict[str, Tensor]:
    """Note on each tensor of margins how it was measured, for :func:`statistics`; what is computed from it lacks it."""
    # by class: networks may learn their curvatures
    options["manifolds"] = {layer: type(manifold).__name__ for layer, manifold in sorted((manifolds or {}).items())}
    if subspaces:
        options["ranks"] = {layer: directions.shape[1] for layer, directions in sorted(subspaces.items())}
    measured = ", ".join(f"{name}={value!r}" for name, value in options.items())
    for values in by_layer.values():
        values.measured = measured  # type: ignore[attr-defined]
    return by_layer


def check_options(kind: str, log: str | None) -> None:
    """Raise for options that :func:`statistics` does not have."""
    if kind not in _NAMES:
        raise ValueError(f"kind must be 'fences', 'quartiles' or 'moments', got {kind!r}")
    if log not in (None, "drop", "signed"):
        raise ValueError(f"log must be 'drop', 'signed' or None, got {log!r}")


def _of_layer(layer: str, margins: Tensor, kind: Kind, log: Log) -> np.ndarray:
    values = margins.detach().to("cpu", torch.float64).numpy()
    if values.ndim != 1 or not len(values):
        raise ValueError(f"margins of layer {layer!r} must be a tensor (examples,), got shape {tuple(values.shape)}")
    if not np.isfinite(values).all():
        raise NotFinite(f"margins of layer {layer!r} are not finite")
    if log == "drop":
        values = values[values > 0]
        if not len(values):
            raise ValueError(f"no margin of layer {layer!r} is positive, so that none has a logarithm; use 'signed'")
        values = np.log(values)
    elif log == "signed":
        values = np.sign(values) * np.log1p(np.abs(values))
    if kind == "moments":
        return _moments(layer, values)
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    reach = 1.5 * (q3 - q1)
    fences = [q1 - reach, q3 + reach] if kind == "fences" else []
    return np.array([q1, median, q3, *fences])


def _moments(layer: str, values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    deviation = np.sqrt((centred**2).mean())
    if not deviation > 1e-12 * np.abs(values).max():
        raise ValueError(f"all margins of layer {layer!r} are equal, so that they have no skewness and kurtosis")
    scaled = centred / deviation
    return np.array([values.mean(), deviation, (scaled**3).mean(), (scaled**4).mean()])


def as_matrix(features: Sequence[Statistics] | np.ndarray) -> tuple[np.ndarray, tuple[str, ...], str | None]:
    """Return features as a matrix ``(networks, features)``, a name for each column, and how they were measured."""
    if isinstance(features, np.ndarray):
        if features.ndim != 2:
            raise ValueError(f"features must be a matrix (networks, features), got shape {features.shape}")
        return features.astype(np.float64), tuple(f"feature {i}" for i in range(features.shape[1])), None
    if isinstance(features, Statistics) or not len(features) or not all(isinstance(f, Statistics) for f in features):
        raise ValueError("features must be a numpy matrix, or a list of the statistics of one network at least")
    names, measured = features[0].names, next((f.measured for f in features if f.measured), None)
    for i, f in enumerate(features):
        if f.names != names:
            raise ValueError(f"features of network {i} are {f.names}, but those of network 0 are {names}")
        if f.measured and f.measured != measured:
            raise ValueError(
                f"features of network {i} were measured with {f.measured}, but those of others with {measured}; "
                "measure all alike"
            )
    return np.stack([f.values for f in features]), names, measured
