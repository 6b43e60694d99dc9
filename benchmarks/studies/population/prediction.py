"""How well a linear model predicts, with intervals over base configurations.

All that least squares needs of the networks of a base configuration is their matrix of products; sums of these with
weights give the fits of folds and of bootstrap samples, a thousand times faster than fitting each anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr
from sklearn.model_selection import GroupKFold

__all__ = ["Estimate", "Networks", "adjusted_r2", "around", "bootstrap", "held_out_error", "k_fold_r2", "transfer"]

FOLDS = 10
SAMPLES = 1000
_RIDGE = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A number, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


class Networks:
    """Features and outcomes of networks, summed over those of each base configuration.

    Parameters
    ----------
    x, y : numpy.ndarray
        ``(n, features)`` and ``(n,)``.
    bases : sequence of int
        Base configuration of each network.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, bases: Sequence[int] | np.ndarray) -> None:
        deviation = x.std(0)
        scaled = (x - x.mean(0)) / np.where(deviation > 0, deviation, 1.0)
        design = np.column_stack((np.ones(len(x)), scaled[:, _independent(scaled)]))
        bases = np.asarray(bases)
        self._add(design, y, bases, np.unique(bases))

    def part(self, chosen: np.ndarray) -> Networks:
        """Return some of the networks, with features in the same units and all base configurations."""
        part = Networks.__new__(Networks)
        part._add(self.design[chosen], self.y[chosen], self.bases[chosen], self.names)
        return part

    def _add(self, design: np.ndarray, y: np.ndarray, bases: np.ndarray, names: np.ndarray) -> None:
        self.design, self.y, self.bases, self.names = design, y, bases, names
        parts = [np.flatnonzero(bases == name) for name in names]
        self.products = np.stack([self.design[p].T @ self.design[p] for p in parts])
        self.covariances = np.stack([self.design[p].T @ y[p] for p in parts])
        self.squares = np.array([y[p] @ y[p] for p in parts])
        self.sums = np.array([y[p].sum() for p in parts])
        self.counts = np.array([len(p) for p in parts])
        # the folds of rsam.margins.GapModel
        self.fold = np.zeros(len(parts), dtype=int)
        folds = GroupKFold(min(FOLDS, len(np.unique(bases)))).split(design, y, bases)
        for number, (_, left_out) in enumerate(folds):
            self.fold[np.isin(names, bases[left_out])] = number

    @property
    def features(self) -> int:
        """How many features there are; what is a linear combination of others is left out."""
        return self.design.shape[1] - 1

    def fit(self, weights: np.ndarray) -> np.ndarray:
        """Return the coefficients of a fit in which each base configuration counts so many times."""
        products = np.tensordot(weights, self.products, 1)
        # for samples in which a feature is constant; far below what the errors of measurements amount to
        products[np.diag_indices_from(products)] += _RIDGE * len(self.y)
        return np.linalg.solve(products, weights @ self.covariances)

    def errors(self, coefficients: np.ndarray, chosen: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Return the sum of squared errors of each base configuration, or of the chosen ones."""
        quadratic = (self.products[chosen] @ coefficients) @ coefficients
        return self.squares[chosen] - 2 * self.covariances[chosen] @ coefficients + quadratic

    def variation(self, weights: np.ndarray) -> float:
        """Return the sum of squared differences of the outcome from its mean."""
        return float(weights @ self.squares - (weights @ self.sums) ** 2 / (weights @ self.counts))


def _independent(x: np.ndarray) -> np.ndarray:
    """Choose as many columns as are linearly independent."""
    _, r, order = qr(x, mode="economic", pivoting=True)
    sizes = np.abs(np.diagonal(r))
    return np.sort(order[: len(sizes)][sizes > 1e-8 * sizes[0]])


Statistic = Callable[[np.ndarray], float]


def adjusted_r2(networks: Networks) -> Statistic:
    """Return a function of weights: R² of the fit, corrected for the number of features."""
    features = networks.features

    def of(weights: np.ndarray) -> float:
        count = float(weights @ networks.counts)
        error = float(weights @ networks.errors(networks.fit(weights))) / networks.variation(weights)
        return 1 - error * (count - 1) / (count - features - 1)

    return of


def held_out_error(networks: Networks) -> Statistic:
    """Return a function of weights: the sum of squared errors of predictions without the own fold."""

    def of(weights: np.ndarray) -> float:
        total = 0.0
        for fold in np.unique(networks.fold):
            inside = networks.fold == fold
            coefficients = networks.fit(np.where(inside, 0.0, weights))
            total += float(weights[inside] @ networks.errors(coefficients, inside))
        return total

    return of


def k_fold_r2(networks: Networks) -> Statistic:
    """Return a function of weights: R² of predictions without the own fold."""
    error = held_out_error(networks)
    return lambda weights: 1 - error(weights) / networks.variation(weights)


def transfer(fitted: Networks, others: Networks) -> tuple[Statistic, Statistic]:
    """Return functions of weights: R² and bias on other networks, predicted by fits without their base configuration.

    Parameters
    ----------
    fitted, others : Networks
        Two parts of the same networks, by :meth:`Networks.part`.
    """

    def coefficients(weights: np.ndarray) -> list[np.ndarray]:
        return [fitted.fit(np.where(np.arange(len(weights)) == i, 0.0, weights)) for i in range(len(weights))]

    def r2(weights: np.ndarray) -> float:
        errors = [others.errors(c, np.array([i]))[0] for i, c in enumerate(coefficients(weights))]
        return 1 - float(weights @ np.array(errors)) / others.variation(weights)

    def bias(weights: np.ndarray) -> float:
        # the first column of a design is of ones, so that the first row of its products are its sums
        predicted = [others.products[i, 0] @ c for i, c in enumerate(coefficients(weights))]
        return float(weights @ (np.array(predicted) - others.sums)) / float(weights @ others.counts)

    return r2, bias


def bootstrap(statistic: Statistic, count: int, samples: int = SAMPLES, seed: int = 0) -> Estimate:
    """Compute a statistic of base configurations, with an interval of 1.96 standard deviations over samples of them.

    Percentiles would not do: in a sample fewer configurations are distinct, so that predictions are worse.

    Parameters
    ----------
    statistic : callable
        Takes how often each base configuration counts.
    count : int
        How many there are.
    samples, seed
        Samples of as many, drawn with replacement.
    """
    random = np.random.default_rng(seed)
    drawn = [statistic(np.bincount(random.integers(count, size=count), minlength=count) * 1.0) for _ in range(samples)]
    return around(statistic(np.ones(count)), np.array(drawn))


def around(value: float, drawn: np.ndarray) -> Estimate:
    """Return an estimate with the interval that the spread of its bootstrap samples gives; nan in these is left out."""
    reach = 1.96 * float(np.nanstd(drawn))
    return Estimate(value, value - reach, value + reach)
