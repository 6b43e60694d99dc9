"""Compute rank correlations of a measure and the generalisation gap."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau

__all__ = ["GranulatedTau", "granulated_tau", "kendall_tau"]


def kendall_tau(measure: Sequence[float] | np.ndarray, gaps: Sequence[float] | np.ndarray) -> float:
    """Compute Kendall's rank correlation (tau-b, which corrects for ties) of a measure and gaps.

    Parameters
    ----------
    measure, gaps : sequence of float
        One number for each network, two at least.

    Returns
    -------
    float
        From -1 to 1.

    Raises
    ------
    ValueError
        For unequal lengths, numbers that are not finite, and a measure or gaps that are all equal.

    Examples
    --------
    >>> import rsam
    >>> rsam.margins.kendall_tau([1, 2, 3], [0.1, 0.3, 0.2])
    0.333...
    """
    x, y = _numbers(measure, gaps)
    tau = float(kendalltau(x, y).statistic)
    if math.isnan(tau):
        raise ValueError("measure or gaps are all equal, so that they have no ranks")
    return tau


@dataclass(frozen=True)
class GranulatedTau:
    """Rank correlations for each hyper-parameter, with all others fixed.

    Attributes
    ----------
    by_axis : dict of str to float
        Mean correlation over the cells of each hyper-parameter.

    Examples
    --------
    >>> import rsam
    >>> tau = rsam.margins.GranulatedTau({"rate": 0.5, "width": -0.25})
    >>> tau.mean, tau.worst_axis, tau.worst
    (0.125, 'width', -0.25)
    """

    by_axis: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean correlation over the hyper-parameters (Jiang et al. 2020)."""
        return sum(self.by_axis.values()) / len(self.by_axis)

    @property
    def worst_axis(self) -> str:
        """Hyper-parameter with the lowest correlation, for which the measure fails most (Dziugaite et al. 2020)."""
        return min(self.by_axis, key=self.by_axis.__getitem__)

    @property
    def worst(self) -> float:
        """Lowest correlation."""
        return self.by_axis[self.worst_axis]


def granulated_tau(
    measure: Sequence[float] | np.ndarray,
    gaps: Sequence[float] | np.ndarray,
    hyperparameters: Mapping[str, Sequence[Any]],
) -> GranulatedTau:
    r"""Compute the granulated Kendall coefficient of a measure and gaps.

    It is that of Jiang et al. 2020 (equation 5). For each hyper-parameter, networks that agree in all others form a
    cell. In a cell Kendall's coefficient is the mean of :math:`\mathrm{sign}(\mu - \mu')\,\mathrm{sign}(g - g')` over
    pairs that differ in the hyper-parameter, so that ties count as 0. The cells are averaged.

    Parameters
    ----------
    measure, gaps : sequence of float
        One number for each network, two at least; the measure should be larger where the gap is larger.
    hyperparameters : mapping of str to sequence
        Values of each hyper-parameter, one for each network.

    Returns
    -------
    GranulatedTau
        Coefficients by hyper-parameter, with their mean and the worst of them.

    Raises
    ------
    ValueError
        For unequal lengths, numbers that are not finite, no hyper-parameter, one that is NaN, and one that varies in no
        cell.

    Examples
    --------
    >>> import rsam
    >>> rates, widths = [0.1, 0.1, 0.2, 0.2], [8, 16, 8, 16]
    >>> tau = rsam.margins.granulated_tau([1, 2, 3, 4], [1, 2, 4, 3], {"rate": rates, "width": widths})
    >>> tau.by_axis, tau.mean, tau.worst_axis
    ({'rate': 1.0, 'width': 0.0}, 0.5, 'width')
    """
    x, y = _numbers(measure, gaps)
    if not hyperparameters:
        raise ValueError("hyperparameters is empty; name at least one")
    axes = {name: _values(name, values, len(x)) for name, values in hyperparameters.items()}
    return GranulatedTau({name: _of_axis(name, x, y, axes) for name in axes})


def _values(name: str, values: Any, count: int) -> list[Any]:
    # of arrays, tensors and columns of tables in their order, whatever the index of a table
    found = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(found) != count:
        raise ValueError(f"hyper-parameter {name!r} has {len(found)} values for {count} networks")
    for i, value in enumerate(found):
        if not isinstance(value, Hashable):
            raise ValueError(
                f"hyper-parameter {name!r} of network {i} is a {type(value).__name__}; give numbers, strings or tuples"
            )
        if value != value:  # NaN, which differs from itself, so that no two networks agree in it
            raise ValueError(f"hyper-parameter {name!r} of network {i} is NaN; give what is missing a value")
    return found


def _of_axis(name: str, x: np.ndarray, y: np.ndarray, hyperparameters: Mapping[str, Sequence[Any]]) -> float:
    others = [values for other, values in hyperparameters.items() if other != name]
    cells: dict[tuple[Any, ...], list[int]] = {}
    for i in range(len(x)):
        cells.setdefault(tuple(values[i] for values in others), []).append(i)
    varied = hyperparameters[name]
    taus = []
    for cell in cells.values():
        pairs = [(i, j) for i in cell for j in cell if i < j and varied[i] != varied[j]]
        if pairs:
            taus.append(float(np.mean([np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs])))
    if not taus:
        raise ValueError(f"no two networks differ in hyper-parameter {name!r} and agree in all others; leave it out")
    return sum(taus) / len(taus)


def _numbers(measure: Any, gaps: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(values, dtype=np.float64) for values in (measure, gaps))
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise ValueError(f"measure and gaps must be as many numbers, two at least, got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("measure and gaps must be finite")
    return x, y
