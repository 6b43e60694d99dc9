"""Measure margins of classifiers, and predict the generalisation gap from them. Needs ``rsam[margins]``.

:func:`margins` measures how far examples are from the decision boundary, at the input and at hidden layers, in the
metric of the layer's manifold. :func:`statistics` summarises margins as a vector, from which :class:`GapModel` predicts
the difference of training and test accuracy.
"""

try:
    import scipy as _scipy  # noqa: F401
    import sklearn as _sklearn  # noqa: F401
    import tqdm as _tqdm  # noqa: F401
except ImportError as error:
    raise ImportError(f"rsam.margins needs {error.name}: pip install 'rsam[margins]'") from error

from rsam.margins.correlation import GranulatedTau, granulated_tau, kendall_tau
from rsam.margins.distances import distances
from rsam.margins.first_order import margins, total_variations
from rsam.margins.gap_model import GapModel
from rsam.margins.norms import path_norm, spectral_norms
from rsam.margins.plots import plot_gaps, plot_margins
from rsam.margins.principal import PrincipalComponents, principal_components
from rsam.margins.regression import Coefficients
from rsam.margins.statistics import Statistics, statistics
from rsam.margins.transport import k_variance, kv_margins

__all__ = [
    "Coefficients",
    "GapModel",
    "GranulatedTau",
    "PrincipalComponents",
    "Statistics",
    "distances",
    "granulated_tau",
    "k_variance",
    "kendall_tau",
    "kv_margins",
    "margins",
    "path_norm",
    "plot_gaps",
    "plot_margins",
    "principal_components",
    "spectral_norms",
    "statistics",
    "total_variations",
]
