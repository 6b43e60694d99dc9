"""Fit least squares to independent standardised features, and give intervals of the coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from rsam.evaluation.parameters import as_integer

__all__ = ["Coefficients", "Regression", "check_networks"]


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Coefficients of a linear model in units of a feature's standard deviation, with confidence intervals.

    Attributes
    ----------
    names : tuple of str
        Names of the features.
    values, low, high : numpy.ndarray
        Change of the gap per standard deviation of each feature, and the ends of the interval.

    Examples
    --------
    >>> import numpy as np, rsam
    >>> depth, gaps = np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([0.1, 0.2, 0.3, 0.5])
    >>> coefficients = rsam.margins.GapModel().fit(depth, gaps).coefficients(confidence=0.5)
    >>> coefficients.names, coefficients.values.round(3)
    (('feature 0',), array([0.145]))
    >>> print(coefficients)
    feature 0  0.1453  [ 0.1295,  0.1612]
    """

    names: tuple[str, ...]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __str__(self) -> str:
        width = max(map(len, self.names))
        rows = zip(self.names, self.values, self.low, self.high, strict=True)
        return "\n".join(f"{name:<{width}} {v: .4f}  [{a: .4f}, {b: .4f}]" for name, v, a, b in rows)


class Regression:
    """Least-squares fit, with its data.

    Parameters
    ----------
    x, y, groups : numpy.ndarray
        Features ``(n, features)``, numbers to predict, and group of each row.

    Raises
    ------
    ValueError
        For too few rows for the fit, if all ``y`` are equal, and if no feature varies beyond its rounding.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:
        self.x, self.y, self.groups = x, y, groups
        if len(y) < 2 or y.min() == y.max():
            raise ValueError("all gaps are equal, so that there is nothing to explain")
        self.pipeline = _pipeline().fit(x, y)
        #: Indices of the features that were not dropped.
        self.kept: list[int] = self.pipeline["independent"].kept_
        if not self.kept:
            raise ValueError("no feature varies between networks, so that none can explain the gaps")
        if len(x) < len(self.kept) + 2:
            # over n networks at most n - 1 features are independent, so that one more network might only show one more
            kept, count = len(self.kept), x.shape[1]
            more = f" ({count + 2} suffice for all {count} features)" if kept < count else ""
            raise ValueError(
                f"{kept} independent features need at least {kept + 2} networks, got {len(x)}{more}; "
                "take fewer layers or kind='quartiles'"
            )

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return predictions for rows of features."""
        predictions: np.ndarray = self.pipeline.predict(x)
        return predictions

    @property
    def coefficients(self) -> np.ndarray:
        """Return the coefficients of the standardised features that were not dropped."""
        coefficients: np.ndarray = self.pipeline["regression"].coef_
        return coefficients

    def r2(self, predicted: np.ndarray) -> float:
        """Return the coefficient of determination of predictions."""
        return 1 - float(((self.y - predicted) ** 2).sum() / ((self.y - self.y.mean()) ** 2).sum())

    def held_out(self, folds: int) -> np.ndarray:
        """Return predictions of each row by a fit without its fold; folds hold whole groups."""
        count = len(np.unique(self.groups))
        folds = as_integer("folds", folds)
        if folds < 2 or count < 2:
            raise ValueError(f"cross-validation needs two folds and two groups, got {folds} and {count}")
        predicted = np.empty_like(self.y)
        for fit, left_out in GroupKFold(min(folds, count)).split(self.x, self.y, self.groups):
            predicted[left_out] = _pipeline().fit(self.x[fit], self.y[fit]).predict(self.x[left_out])
        return predicted

    def student_interval(self, confidence: float) -> tuple[np.ndarray, np.ndarray]:
        """Return t-intervals of the coefficients, for errors that are independent and of one variance."""
        z = self._standardised()
        degrees = len(z) - z.shape[1] - 1
        variance = ((self.y - self.predict(self.x)) ** 2).sum() / degrees
        # standardised features have mean zero, so that the intercept is independent of the coefficients
        error = np.sqrt(variance * np.diag(np.linalg.inv(z.T @ z)))
        reach = student.ppf((1 + confidence) / 2, degrees) * error
        return self.coefficients - reach, self.coefficients + reach

    def bootstrap_interval(self, confidence: float, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return percentiles of the coefficients over samples of whole groups, drawn with replacement."""
        samples, seed = as_integer("samples", samples), as_integer("seed", seed, 0)
        rows_of = [np.flatnonzero(self.groups == g) for g in np.unique(self.groups)]
        if len(rows_of) < 2 or samples < 2:
            raise ValueError(f"a bootstrap needs two groups and samples, got {len(rows_of)} and {samples}")
        design = np.column_stack((np.ones(len(self.y)), self._standardised()))
        random, drawn = np.random.default_rng(seed), []
        for _ in range(samples):
            rows = np.concatenate([rows_of[i] for i in random.integers(len(rows_of), size=len(rows_of))])
            solution, _, rank, _ = np.linalg.lstsq(design[rows], self.y[rows], rcond=None)
            if rank == design.shape[1]:  # else it is the shortest of many solutions
                drawn.append(solution[1:])
        tail, missing = (1 - confidence) / 2, samples - len(drawn)
        if missing > tail * samples:
            raise ValueError(
                f"{missing} of {samples} samples of {len(rows_of)} groups hold too few different networks to "
                f"determine {design.shape[1] - 1} coefficients; take more groups, fewer features or method='student'"
            )
        low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
        return low, high

    def _standardised(self) -> np.ndarray:
        standardised: np.ndarray = self.pipeline[:-1].transform(self.x)
        return standardised


class _Independent(TransformerMixin, BaseEstimator):
    """Transformer that keeps the columns that are no linear combinations of those before them.

    Least squares can be solved with dependent columns too, but with huge coefficients if rounding hides the dependence.
    """

    tolerance = 1e-6

    def fit(self, x: np.ndarray, y: Any = None) -> _Independent:
        basis: list[np.ndarray] = []
        self.kept_: list[int] = []
        for i, column in enumerate(x.T):
            rest = column.copy()
            for _ in range(2):  # a second pass restores the digits that the first one loses
                for b in basis:
                    rest -= (b @ rest) * b
            size = float(np.linalg.norm(rest))
            if size > self.tolerance * max(float(np.linalg.norm(column)), 1.0):
                basis.append(rest / size)
                self.kept_.append(i)
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        # if none varies, as without a fold, the regression predicts the mean, but needs a column
        return x[:, self.kept_] if self.kept_ else np.zeros((len(x), 1))


def _pipeline() -> Pipeline:
    return Pipeline([("scale", StandardScaler()), ("independent", _Independent()), ("regression", LinearRegression())])


def check_networks(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:
    """Raise for features ``(networks, features)``, gaps and groups that do not belong together or are no numbers."""
    if y.shape != (len(x),) or groups.shape != (len(x),):
        raise ValueError(
            f"features of {len(x)} networks need as many gaps and groups, got shapes {y.shape} and {groups.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("features and gaps must be finite")
    if groups.dtype.kind not in "iubU":
        raise ValueError("groups must be integers or strings that name configurations, such as '0.1/64'")
