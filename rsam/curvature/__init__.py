"""Curvature of the loss at a model whose parameters may live on manifolds. Needs ``rsam[curvature]``.

:class:`RiemannianHessian` and :class:`RiemannianGaussNewton` are curvlinops operators; the functions take them, or,
where first derivatives are enough, what makes them.
"""

try:
    import curvlinops as _curvlinops  # noqa: F401
except ImportError as error:
    raise ImportError("rsam.curvature needs curvlinops: pip install 'rsam[curvature]'") from error

from rsam.curvature.density import SpectralDensity, spectral_density
from rsam.curvature.eigenvalues import Eigenpairs, top_eigenvalues
from rsam.curvature.estimate import Estimate
from rsam.curvature.fisher_trace import fisher_trace
from rsam.curvature.gauss_newton import RiemannianGaussNewton
from rsam.curvature.gradient_norm import gradient_norm
from rsam.curvature.hessian import RiemannianHessian
from rsam.curvature.linear import LinearOperator
from rsam.curvature.sharpness import sharpness
from rsam.curvature.trace import layer_traces, trace

__all__ = [
    "Eigenpairs",
    "Estimate",
    "LinearOperator",
    "RiemannianGaussNewton",
    "RiemannianHessian",
    "SpectralDensity",
    "fisher_trace",
    "gradient_norm",
    "layer_traces",
    "sharpness",
    "spectral_density",
    "top_eigenvalues",
    "trace",
]
