"""Predict the generalisation gap linearly, with errors that hold for configurations not seen before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import geoopt
import numpy as np
from torch import nn

from rsam.evaluation.archives import read_arrays
from rsam.margins.first_order import Nearest, margins
from rsam.margins.network import Data, as_names
from rsam.margins.regression import Coefficients, Regression, check_networks
from rsam.margins.statistics import Kind, Log, Statistics, as_matrix, check_options, statistics

__all__ = ["GapModel"]

_FORMAT = 1


class GapModel:
    r"""Predict the generalisation gap, training minus test accuracy, from statistics of margins by least squares.

    The model is a pipeline of scikit-learn: it standardises features, drops those that are linear combinations of
    earlier ones, and fits a linear regression. Cross-validation fits all three without the fold that is predicted.

    Parameters
    ----------
    layers : sequence of str
        Layers whose margins :meth:`features` and :meth:`predict_gap` measure.
    kind, log : as for :func:`statistics`
        How to summarise the margins of a layer.
    nearest, normalize : as for :func:`margins`
        Which boundary to measure to, and whether to divide by the total variation.
    eps : float
        As for :func:`margins`, but by default that of Jiang et al., since in narrow networks with ReLUs the gradients
        of some examples vanish; quantiles hardly depend on these.

    Attributes
    ----------
    names : tuple of str
        Names of the features, after fitting.
    dropped : tuple of str
        Names of features that are linear combinations of earlier ones; with ``kind="fences"`` two for each layer.

    Raises
    ------
    ValueError
        For layers that are one string, and an unknown ``kind`` or ``log``.

    Examples
    --------
    >>> import numpy as np, rsam
    >>> random = np.random.default_rng(0)
    >>> features = random.normal(size=(60, 2))
    >>> gaps = 0.1 + 0.03 * features[:, 0] + 0.01 * random.normal(size=60)
    >>> model = rsam.margins.GapModel().fit(features, gaps, groups=np.arange(60) // 3)
    >>> model
    GapModel(['input'], kind='fences', log='drop') of 60 networks, adjusted R² 0.89
    >>> 0.8 < model.k_fold_r2() < model.r2
    True
    >>> print(model.coefficients())
    feature 0  0.0282  [ 0.0256,  0.0308]
    feature 1 -0.0021  [-0.0047,  0.0005]
    """

    def __init__(
        self,
        layers: Sequence[str] = ("input",),
        *,
        kind: Kind = "fences",
        log: Log = "drop",
        nearest: Nearest = "runner_up",
        normalize: bool = True,
        eps: float = 1e-6,
    ) -> None:
        check_options(kind, log)
        self.layers, self.kind, self.log = as_names(layers), kind, log
        self.nearest, self.normalize, self.eps = nearest, normalize, eps
        self._fit: Regression | None = None

    def __repr__(self) -> str:
        made = f"GapModel({list(self.layers)}, kind={self.kind!r}, log={self.log!r})"
        if self._fit is None:
            return made
        return f"{made} of {len(self._fit.y)} networks, adjusted R² {self.adjusted_r2:.2f}"

    # -- features ------------------------------------------------------------------------------------------------

    def features(
        self,
        model: nn.Module,
        data: Data,
        *,
        manifolds: Mapping[str, geoopt.Manifold] | None = None,
        progressbar: bool = False,
    ) -> Statistics:
        """Measure the statistics of a network's margins, from which this model predicts.

        Parameters
        ----------
        model, data : as for :func:`margins`
            The network, and its training data.
        manifolds, progressbar : as for :func:`margins`
            Manifolds of layers, and whether to show a bar.

        Returns
        -------
        Statistics
            One vector over all layers.

        Raises
        ------
        TypeError, ValueError, NotFinite, UnsupportedOperation
            As :func:`margins` and :func:`statistics`.
        """
        options: dict[str, Any] = {"nearest": self.nearest, "normalize": self.normalize, "eps": self.eps}
        by_layer = margins(model, data, self.layers, **options, manifolds=manifolds, progressbar=progressbar)
        return statistics(by_layer, self.kind, log=self.log)

    # -- fitting -------------------------------------------------------------------------------------------------

    def fit(
        self,
        features: Sequence[Statistics] | np.ndarray,
        gaps: Sequence[float] | np.ndarray,
        groups: Sequence[Any] | np.ndarray | None = None,
    ) -> GapModel:
        """Fit by least squares.

        Parameters
        ----------
        features : sequence of Statistics, or numpy.ndarray
            One vector for each network, or a matrix ``(networks, features)``.
        gaps : sequence of float
            Training minus test accuracy of each network.
        groups : sequence, optional
            Configuration of each network, an integer or a string; networks that differ only in the seed share one.
            Cross-validation leaves out whole groups. By default each network is a group.

        Returns
        -------
        GapModel
            The model itself.

        Raises
        ------
        ValueError
            For features with different names or measured differently, unequal lengths, numbers that are not finite,
            gaps that are all equal, features of which none varies, and too few networks for the fit.
        """
        x, names, measured = as_matrix(features)
        y = np.asarray(gaps, dtype=np.float64)
        g = np.asarray(range(len(x)) if groups is None else groups)
        check_networks(x, y, g)
        self._fit, self.names, self._measured = Regression(x, y, g), names, measured
        self.dropped = tuple(name for i, name in enumerate(names) if i not in self._fit.kept)
        return self

    def predict(self, features: Sequence[Statistics] | np.ndarray | Statistics) -> np.ndarray:
        """Predict the gaps of networks.

        Parameters
        ----------
        features : as for :meth:`fit`, or Statistics
            Features of many networks, or of one.

        Returns
        -------
        numpy.ndarray
            Predictions ``(networks,)``.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        ValueError
            For features other than those that it was fitted to, measured differently, or not finite.
        """
        fit = self._fitted()
        x, names, measured = as_matrix([features] if isinstance(features, Statistics) else features)
        if names != self.names:
            raise ValueError(f"features {names} are not those that the model was fitted to, {self.names}")
        if measured and self._measured and measured != self._measured:
            raise ValueError(f"features were measured with {measured}, but those of the fit with {self._measured}")
        if not np.isfinite(x).all():
            raise ValueError("features must be finite")
        return fit.predict(x)

    def predict_gap(
        self,
        model: nn.Module,
        data: Data,
        *,
        manifolds: Mapping[str, geoopt.Manifold] | None = None,
        progressbar: bool = False,
    ) -> float:
        """Predict the gap of a network from its training data.

        Parameters
        ----------
        model, data, manifolds, progressbar : as for :meth:`features`
            The network, its training data, and how to measure its margins.

        Returns
        -------
        float
            Training minus test accuracy, as a fraction if the gaps of the fit were.

        Raises
        ------
        RuntimeError, TypeError, ValueError, NotFinite, UnsupportedOperation
            As :meth:`features` and :meth:`predict`.
        """
        self._fitted()
        return float(self.predict(self.features(model, data, manifolds=manifolds, progressbar=progressbar))[0])

    # -- how good it is ------------------------------------------------------------------------------------------

    @property
    def r2(self) -> float:
        """Coefficient of determination on the networks of the fit."""
        fit = self._fitted()
        return fit.r2(fit.predict(fit.x))

    @property
    def adjusted_r2(self) -> float:
        """Coefficient of determination, corrected for the number of features: ``1 - (1 - r2) (n - 1) / (n - p - 1)``.

        ``p`` is the number of independent features, without those that were dropped.
        """
        n, p = len(self._fitted().y), len(self._fitted().kept)
        return 1 - (1 - self.r2) * (n - 1) / (n - p - 1)

    def held_out(self, folds: int = 10) -> np.ndarray:
        """Predict each network by a model that was fitted without the network's fold; folds hold whole groups.

        Parameters
        ----------
        folds : int
            Number of folds; reduced to the number of groups if there are fewer.

        Returns
        -------
        numpy.ndarray
            ``(networks,)``.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        ValueError
            For fewer than two folds or groups.
        """
        return self._fitted().held_out(folds)

    def k_fold_r2(self, folds: int = 10) -> float:
        """Compute the coefficient of determination of :meth:`held_out`.

        It is at most 1, and 0 if the predictions are no better than the mean gap. It is negative if they are worse, as
        predictions from unrelated features are.

        Parameters
        ----------
        folds : int
            As for :meth:`held_out`.

        Returns
        -------
        float
            ``1 - (sum of squared errors) / (sum of squared deviations from the mean gap)``.

        Raises
        ------
        RuntimeError, ValueError
            As :meth:`held_out`.
        """
        return self._fitted().r2(self.held_out(folds))

    def coefficients(
        self,
        confidence: float = 0.95,
        method: Literal["student", "bootstrap"] = "student",
        *,
        samples: int = 1000,
        seed: int = 0,
    ) -> Coefficients:
        """Return the coefficients with confidence intervals.

        Parameters
        ----------
        confidence : float
            Level of each interval, between 0 and 1, not corrected for the number of intervals.
        method : {"student", "bootstrap"}
            ``"student"``: t-intervals of least squares, for errors that are independent between networks.
            ``"bootstrap"``: percentiles over resampled groups, for errors that networks of a configuration share.
        samples, seed : int
            Number of resamplings and seed of the bootstrap.

        Returns
        -------
        Coefficients
            Coefficients of the features that were not dropped.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        ValueError
            For bad options, a bootstrap of fewer than two groups, and one whose samples too often hold fewer different
            networks than it takes to fit the features.
        """
        fit = self._fitted()
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
        if method == "student":
            low, high = fit.student_interval(confidence)
        elif method == "bootstrap":
            low, high = fit.bootstrap_interval(confidence, samples, seed)
        else:
            raise ValueError(f"method must be 'student' or 'bootstrap', got {method!r}")
        return Coefficients(tuple(self.names[i] for i in fit.kept), fit.coefficients, low, high)

    # -- saving --------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the model to an ``.npz`` file: its settings, and the features and gaps of the fit.

        The file contains no pickled objects.

        Parameters
        ----------
        path : str or Path
            File name that ends in ``.npz``.

        Raises
        ------
        RuntimeError
            If the model is not fitted.
        ValueError
            For another file name.
        """
        fit = self._fitted()
        if Path(path).suffix != ".npz":  # numpy would add the suffix, and load would not find the file
            raise ValueError(f"path must end in .npz, got {str(path)!r}")
        settings = {
            "format": _FORMAT,
            "layers": self.layers,
            "kind": self.kind,
            "log": self.log,
            "nearest": self.nearest,
            "normalize": self.normalize,
            "eps": self.eps,
            "names": self.names,
            "measured": self._measured,
        }
        np.savez(path, settings=json.dumps(settings), features=fit.x, gaps=fit.y, groups=fit.groups)

    @classmethod
    def load(cls, path: str | Path) -> GapModel:
        """Read a model that :meth:`save` wrote, and fit it again.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        GapModel
            The fitted model.

        Raises
        ------
        ValueError
            If :meth:`save` did not write the file.
        """
        arrays = read_arrays(path)
        if not {"settings", "features", "gaps", "groups"} <= set(arrays):
            raise ValueError(f"{str(path)!r} holds no gap model")
        settings = json.loads(str(arrays["settings"]))
        if settings.pop("format") != _FORMAT:
            raise ValueError(f"{str(path)!r} was written by another version of rsam")
        names, measured = tuple(settings.pop("names")), settings.pop("measured", None)
        features = [Statistics(names, row, measured) for row in arrays["features"]]
        return cls(**settings).fit(features, arrays["gaps"], arrays["groups"])

    def _fitted(self) -> Regression:
        if self._fit is None:
            raise RuntimeError("the gap model is not fitted; call fit first")
        return self._fit
