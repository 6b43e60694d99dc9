"""Measure the curvature of the loss of a model whose parameters may live on manifolds.

:class:`RiemannianHessian` and :class:`RiemannianGaussNewton` are linear operators with the interface of those of
curvlinops; the estimators take them, or any other operator. Where first derivatives are enough, functions take the
model, the loss and the data instead. :mod:`rsam.curvature.landscape` looks at the loss along lines and planes.

Progress bars, confidence intervals, eigenvalues of large operators and plots need ``rsam[curvature]``.
"""

from rsam.curvature import landscape
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
    "landscape",
    "layer_traces",
    "sharpness",
    "spectral_density",
    "top_eigenvalues",
    "trace",
]
