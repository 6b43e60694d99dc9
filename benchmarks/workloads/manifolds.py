"""Name the manifolds of the workloads, and measure how far a parameter is off its manifold."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor, nn

import rsam

__all__ = ["MANIFOLDS", "TOLERANCE", "violation", "worst_violation"]

MANIFOLDS = {
    # with exact (geodesic) steps: PoincareBall steps along straight lines, which leave the ball if long; points that it
    # puts back at the border stay there
    "poincare": geoopt.PoincareBallExact,
    "lorentz": geoopt.Lorentz,
    "stiefel": geoopt.EuclideanStiefel,
    "canonical": rsam.geometry.CanonicalStiefel,
    "spd": geoopt.SymmetricPositiveDefinite,
}
#: Tolerated violation by precision: the rounding of some thousand steps.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}


@torch.no_grad()
def violation(parameter: Tensor, manifold: geoopt.Manifold) -> float:
    """Measure by how much a parameter violates the equation of its manifold.

    Parameters
    ----------
    parameter : Tensor
        The parameter, a batch of points.
    manifold : geoopt.Manifold
        One of :data:`MANIFOLDS`, a sphere, or a kernel version of either.

    Returns
    -------
    float
        0 on the manifold; infinite where an inequality is violated or a number is not finite.
    """
    if isinstance(manifold, rsam.geometry.KernelSphere | rsam.geometry.KernelStiefel):
        return violation(manifold.flatten(parameter.detach()), manifold.base)
    point = parameter.detach().double()
    if not torch.isfinite(point).all():
        return float("inf")
    if isinstance(manifold, geoopt.Sphere):
        return float((point.norm(dim=-1) - 1).abs().max())
    if isinstance(manifold, geoopt.Stiefel):
        return float(
            (point.mT @ point - torch.eye(point.shape[-1], dtype=point.dtype, device=point.device)).abs().max()
        )
    if isinstance(manifold, geoopt.SymmetricPositiveDefinite):
        if torch.linalg.eigvalsh(point).min() <= 0:
            return float("inf")
        return float((point - point.mT).abs().max() / point.abs().max())
    if isinstance(manifold, geoopt.Lorentz):
        time, space = point[..., 0], point[..., 1:]
        # relative to the two terms that are subtracted
        residual = (time.square() - space.square().sum(-1) - manifold.k.double()).abs() / time.square()
        return float(residual.max()) if (time > 0).all() else float("inf")
    if isinstance(manifold, geoopt.PoincareBall):
        return 0.0 if (manifold.c.double() * point.square().sum(-1) < 1).all() else float("inf")
    raise TypeError(f"no equation for {type(manifold).__name__}; add one here")


def worst_violation(model: nn.Module) -> float:
    """Return the largest violation among the parameters on manifolds, in units of their precision's tolerance."""
    placed = [p for p in model.parameters() if hasattr(p, "manifold")]
    return max((violation(p, p.manifold) / TOLERANCE[p.dtype] for p in placed), default=0.0)
