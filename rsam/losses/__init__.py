"""Penalise sharp minima by differentiable terms that follow the manifolds of the parameters.

Each penalty is a ``torch.nn.Module`` to add to a training loss: ``(loss + penalty(closure)).backward()``, or, at the
least cost, ``penalty.objective(closure).backward()``. ``method="exact"`` differentiates the loss twice or three times,
``method="difference"`` needs gradients only.

To penalise a trace use :class:`FisherTrace`, which is never negative and needs one derivative less, or
:class:`HessianTrace` with ``clamp=0`` and a small weight that is raised gradually. For a loss that is not convex the
trace of the Hessian has no lower bound, and training may drive it to minus infinity.
"""

from rsam.errors import NoHigherDerivative
from rsam.evaluation import differentiable
from rsam.losses.fisher_trace import FisherTrace
from rsam.losses.gradient_norm import GradientNorm
from rsam.losses.hessian_trace import HessianTrace
from rsam.losses.penalty import Penalty
from rsam.losses.sharpness import Sharpness

__all__ = [
    "FisherTrace",
    "GradientNorm",
    "HessianTrace",
    "NoHigherDerivative",
    "Penalty",
    "Sharpness",
    "differentiable",
]
