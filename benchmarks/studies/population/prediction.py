"""How well a linear model predicts, with intervals over base configurations.

All that least squares needs of the networks of a base configuration is their matrix of products; sums of these with
weights give the fits of folds and of bootstrap samples, a thousand times faster than fitting each anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from scipy.linalg import qr
from sklearn.model_selection import GroupKFold

from benchmarks.report.intervals import Interval

__all__ = [
    "Networks",
    "adjusted_r2",
    "around",
    "bootstrap",
    "bootstrap_all",
    "held_out_error",
    "k_fold",
    "k_fold_r2",
    "predictions",
    "transfer",
]

FOLDS = 10
SAMPLES = 1000
_RIDGE = 1e-12


class Networks:
    """Features and outcomes of networks, summed over those of each base configuration.

    Parameters
    ----------
    x, y : numpy.ndarray
        ``(n, features)`` and ``(n,)``.
    bases : sequence of int
        Base configuration of each network.
    means : int
        How many means were subtracted from both before; a fit spends as many degrees of freedom, one by its constant.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, bases: Sequence[int] | np.ndarray, means: int = 1) -> None:
        self.means = means
        deviation = x.std(0)
        scaled = (x - x.mean(0)) / np.where(deviation > 0, deviation, 1.0)
        design = np.column_stack((np.ones(len(x)), scaled[:, _independent(scaled)]))
        bases = np.asarray(bases)
        self._add(design, y, bases, np.unique(bases))

    def part(self, chosen: np.ndarray) -> Networks:
        """Return some of the networks, with features in the same units and all base configurations."""
        part = Networks.__new__(Networks)
        part.means = self.means
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
    def folds(self) -> list[np.ndarray]:
        """The base configurations of each fold."""
        return [np.flatnonzero(self.fold == number) for number in np.unique(self.fold)]

    @property
    def features(self) -> int:
        """How many features there are; what is a linear combination of others is left out."""
        return self.design.shape[1] - 1

    def fit(self, weights: np.ndarray) -> np.ndarray:
        """Return coefficients ``(samples, features + 1)`` of fits in which base configurations count so many times."""
        return self._solve(np.tensordot(weights, self.products, 1), weights @ self.covariances)

    def fits_without(self, weights: np.ndarray, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the same for each of several parts of the base configurations, without that part."""
        products, covariances = np.tensordot(weights, self.products, 1), weights @ self.covariances
        for part in parts:
            own = weights[:, part]
            yield self._solve(
                products - np.tensordot(own, self.products[part], 1), covariances - own @ self.covariances[part]
            )

    def _solve(self, products: np.ndarray, covariances: np.ndarray) -> np.ndarray:
        # for samples in which a feature is constant; far below what the errors of measurements amount to
        ridge = _RIDGE * len(self.y) * np.eye(products.shape[-1])
        # far less on the constant, or it would be shared with such a feature, which may vary in what is predicted
        ridge[0, 0] *= _RIDGE
        return np.linalg.solve(products + ridge, covariances[..., None])[..., 0]

    def errors(self, coefficients: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the sum of squared errors ``(samples, chosen)`` of the chosen base configurations."""
        linear = coefficients @ self.covariances[chosen].T
        quadratic = (np.tensordot(coefficients, self.products[chosen], ([1], [1])) * coefficients[:, None]).sum(-1)
        return self.squares[chosen] - 2 * linear + quadratic

    def variation(self, weights: np.ndarray) -> np.ndarray:
        """Return the sums of squared differences of the outcome from its mean ``(samples,)``; nan if there are none."""
        found = weights @ self.squares - (weights @ self.sums) ** 2 / (weights @ self.counts)
        return np.where(found > 0, found, np.nan)


def _independent(x: np.ndarray) -> np.ndarray:
    """Choose as many columns as are linearly independent."""
    _, r, order = qr(x, mode="economic", pivoting=True)
    sizes = np.abs(np.diagonal(r))
    return np.sort(order[: len(sizes)][sizes > 1e-8 * sizes[0]])


#: Takes how often each base configuration counts in each sample ``(samples, base configurations)``; returns a number
#: for each sample.
Statistic = Callable[[np.ndarray], np.ndarray]
#: The same for several numbers, in rows.
Statistics = Callable[[np.ndarray], np.ndarray]


def adjusted_r2(networks: Networks) -> Statistic:
    """Return a statistic: R² of the fit, corrected for the number of features."""
    features, everyone = networks.features, np.arange(len(networks.names))

    def of(weights: np.ndarray) -> np.ndarray:
        free = weights @ networks.counts - networks.means
        error = (weights * networks.errors(networks.fit(weights), everyone)).sum(1) / networks.variation(weights)
        spare = free - features  # a small sample of base configurations may have none, and no such R²
        return 1 - error * free / np.where(spare > 0, spare, np.nan)

    return of


def held_out_error(networks: Networks) -> Statistic:
    """Return a statistic: the sum of squared errors of predictions without the own fold."""

    folds = networks.folds

    def of(weights: np.ndarray) -> np.ndarray:
        total = np.zeros(len(weights))
        for fold, coefficients in zip(folds, networks.fits_without(weights, folds), strict=True):
            total += (weights[:, fold] * networks.errors(coefficients, fold)).sum(1)
        return total

    return of


def k_fold_r2(networks: Networks) -> Statistic:
    """Return a statistic: R² of predictions without the own fold."""
    error = held_out_error(networks)
    return lambda weights: 1 - error(weights) / networks.variation(weights)


def k_fold(networks: Networks) -> Statistics:
    """Return two statistics of predictions without the own fold: R², and the correlation with the truth.

    Unlike R² the latter forgives predictions that are all too large, or all too spread.
    """
    folds = networks.folds

    def of(weights: np.ndarray) -> np.ndarray:
        errors = np.zeros(len(weights))
        sums = np.zeros((3, len(weights)))  # of predictions, of their squares, and of their products with the truth
        for fold, coefficients in zip(folds, networks.fits_without(weights, folds), strict=True):
            own, products = weights[:, fold], networks.products[fold]
            errors += (own * networks.errors(coefficients, fold)).sum(1)
            sums[0] += (own * (coefficients @ products[:, 0].T)).sum(1)
            sums[1] += np.einsum("sb,sj,bjk,sk->s", own, coefficients, products, coefficients, optimize=True)
            sums[2] += (own * (coefficients @ networks.covariances[fold].T)).sum(1)
        count, truth = weights @ networks.counts, networks.variation(weights)
        variation = np.maximum(sums[1] - sums[0] ** 2 / count, 0) * truth
        common = sums[2] - sums[0] * (weights @ networks.sums) / count
        return np.stack((1 - errors / truth, common / np.sqrt(np.where(variation > 0, variation, np.nan))))

    return of


def transfer(fitted: Networks, others: Networks, *, leave_out: bool = True) -> Statistics:
    """Return three statistics of other networks, predicted by fits without their base configuration.

    They are R², the root of the mean squared error, and the bias.

    Parameters
    ----------
    fitted, others : Networks
        Two parts of the same networks, by :meth:`Networks.part`.
    leave_out : bool
        If False, all are predicted by one fit to all of the first; else by a fit without the own fold.
    """
    folds = fitted.folds

    def of(weights: np.ndarray) -> np.ndarray:
        fits = fitted.fits_without(weights, folds) if leave_out else [fitted.fit(weights)] * len(folds)
        squares, surplus = np.zeros(len(weights)), np.zeros(len(weights))
        for fold, coefficients in zip(folds, fits, strict=True):
            # the first column of a design is of ones, so that the first row of its products are its sums
            predicted = coefficients @ others.products[fold, 0].T
            squares += (weights[:, fold] * others.errors(coefficients, fold)).sum(1)
            surplus += (weights[:, fold] * (predicted - others.sums[fold])).sum(1)
        count = weights @ others.counts
        error = np.sqrt(np.maximum(squares, 0) / count)
        return np.stack((1 - squares / others.variation(weights), error, surplus / count))

    return of


def predictions(fitted: Networks, others: Networks) -> np.ndarray:
    """Predict each of other networks by the fit without its fold; see :func:`transfer`."""
    found = np.empty(len(others.y))
    everyone = np.ones((1, len(fitted.names)))
    for fold, coefficients in zip(fitted.folds, fitted.fits_without(everyone, fitted.folds), strict=True):
        own = np.isin(others.bases, fitted.names[fold])
        found[own] = others.design[own] @ coefficients[0]
    return found


def bootstrap(statistic: Statistic, count: int, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """Compute a statistic of base configurations, with an interval of 1.96 standard deviations over samples of them.

    Percentiles would not do: in a sample fewer configurations are distinct, so that predictions are worse.

    Parameters
    ----------
    statistic : callable
        See :data:`Statistic`.
    count : int
        How many base configurations there are.
    samples, seed
        Samples of as many, drawn with replacement.
    """
    (found,) = bootstrap_all(lambda weights: statistic(weights)[None], count, samples, seed)
    return found


def bootstrap_all(statistics: Statistics, count: int, samples: int = SAMPLES, seed: int = 0) -> list[Interval]:
    """Compute several statistics as :func:`bootstrap` does, of the same samples."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    values, spread = statistics(np.ones((1, count))), statistics(drawn * 1.0)
    return [around(float(value), one) for value, one in zip(values[:, 0], spread, strict=True)]


def around(value: float, drawn: np.ndarray) -> Interval:
    """Return an estimate with the interval that the spread of its bootstrap samples gives; nan in these is left out."""
    return Interval(value, 1.96 * float(np.nanstd(drawn)))
