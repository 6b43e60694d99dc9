"""The stereographic models of constant curvature: Poincare ball, flat space, projected sphere."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry
from rsam.geometry.registry import register
from rsam.geometry.trigonometry import tanc_sqrt

__all__ = ["StereographicExactGeometry", "StereographicGeometry"]


@register(geoopt.Stereographic)
class StereographicGeometry(Geometry):
    r"""Conformal metric :math:`\lambda_x^2 \langle u, v\rangle`, :math:`\lambda_x = 2 / (1 + \kappa\|x\|^2)`.

    Addition as retraction, parallel transport along the geodesic (Bachmann et al. 2020, Skopek et al. 2020).
    """

    isometric = True

    def _factor(self, x: Tensor) -> Tensor:
        return self.manifold.lambda_x(x, keepdim=True)

    def dimension(self, x: Tensor) -> int:
        return x.numel()

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self._factor(x) ** 2 * (u * v).sum(-1, keepdim=True)

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return g / self._factor(x) ** 2

    def lower_index(self, x: Tensor, t: Tensor) -> Tensor:
        return t * self._factor(x) ** 2

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def _clip(self, y: Tensor) -> Tensor:
        # geoopt's clip into the ball takes a norm, which has no second derivative at the origin
        origin = (y == 0).all(-1, keepdim=True)
        return torch.where(origin, y, self.manifold.projx(torch.where(origin, torch.ones_like(y), y)))

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self._clip(x + u)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        half = self._factor(x) / 2
        angle2 = self.manifold.k * half**2 * (u * u).sum(-1, keepdim=True)
        return self._clip(self.manifold.mobius_add(x, half * tanc_sqrt(angle2) * u, project=False))

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Parallel transport along the geodesic: a rotation of the plane of ``x`` and ``y``, and the conformal factors.

        The rotation is geoopt's gyration, written as the Cayley transform of a skew matrix in the difference of the
        points, which keeps its digits near the boundary.
        """
        k, w = self.manifold.k, y - x
        xx, ww, xw = ((a * b).sum(-1, keepdim=True) for a, b in ((x, x), (w, w), (x, w)))
        yy = (y * y).sum(-1, keepdim=True)
        denominator = ((1 + k * xx) + (1 + k * yy) - k * ww) / 2

        def skew(u: Tensor) -> Tensor:
            xu, wu = (x * u).sum(-1, keepdim=True), (w * u).sum(-1, keepdim=True)
            return k * (w * xu - x * wu) / denominator

        tangent2 = k**2 * (xx * ww - xw**2) / denominator**2
        once = skew(v)
        rotated = v + 2 / (1 + tangent2) * (once + skew(once))
        return rotated * self._factor(x) / self._factor(y)

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        return z / self._factor(x)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        return c / self._factor(x)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        dot, square = (x * v).sum(-1, keepdim=True), (v * v).sum(-1, keepdim=True)
        return self.manifold.k * self._factor(x) * (2 * dot * v - square * x)


@register(geoopt.StereographicExact)
class StereographicExactGeometry(StereographicGeometry):
    """The same models stepped along geodesics."""

    retraction_order = 2

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self.exponential(x, u)
