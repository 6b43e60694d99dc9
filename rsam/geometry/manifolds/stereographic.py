"""Define the geometry of stereographic models of constant curvature: Poincare ball, flat space, projected sphere."""

from __future__ import annotations

import geoopt
import torch
from geoopt.manifolds.stereographic.math import mobius_add
from torch import Tensor

from rsam.geometry.base import Geometry
from rsam.geometry.linalg import add_scaled, dot
from rsam.geometry.registry import register
from rsam.geometry.trigonometry import tanc_sqrt

__all__ = ["StereographicExactGeometry", "StereographicGeometry"]


@register(geoopt.Stereographic)
class StereographicGeometry(Geometry):
    r"""Geometry of the metric :math:`\lambda_x^2 \langle u, v\rangle`, :math:`\lambda_x = 2 / (1 + \kappa\|x\|^2)`.

    The retraction is addition, and tangents are transported in parallel along the geodesic (Bachmann et al. 2020,
    Skopek et al. 2020). Momentum keeps its direction in the coordinates, and is scaled by the ratio of the conformal
    factors.
    """

    isometric = True
    momentum_transport = "conformal factors"
    may_fail = False

    def _k(self, x: Tensor) -> Tensor:
        k: Tensor = self.manifold.k.to(x.dtype)  # geoopt's k may have another precision than the points
        return k

    def _shrink(self, k: Tensor, square: Tensor) -> Tensor:
        """Return ``1 / lambda`` of points with squared norm ``square``."""
        return (1 + k * square).clamp_min(1e-15) / 2

    def _inverse(self, x: Tensor) -> Tensor:
        return self._shrink(self._k(x), dot(x, x))

    def _factor(self, x: Tensor) -> Tensor:
        return 1 / self._inverse(x)

    def dimension(self, x: Tensor) -> int:
        return x.numel()

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return dot(u, v) / self._inverse(x) ** 2

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return g * self._inverse(x) ** 2

    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        return u * self._factor(x) ** 2

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def _radius2(self, x: Tensor) -> Tensor:
        """Return the square of the radius that geoopt clips at, or 1e30 if the space is unbounded."""
        k = self._k(x)
        eps = 4e-3 if x.dtype == torch.float32 else 1e-5
        return torch.where(k < 0, (1 - eps) ** 2 / k.abs(), 1e30).to(x.dtype)

    def _clip(self, y: Tensor) -> Tensor:
        radius2 = self._radius2(y)
        # inside, the root of r / r is exactly one and has derivative zero; a norm has no derivative at the origin
        return y * (radius2 / dot(y, y).clamp_min(radius2)).sqrt()

    def project_point(self, x: Tensor) -> Tensor:
        return self._clip(x)

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self._clip(x + u)

    def retract_transport(
        self, x: Tensor, u: Tensor, v: Tensor, t: float | Tensor = 1.0, isometric: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Retract, and multiply momentum by the ratio of the conformal factors, which is always an isometry."""
        y = add_scaled(x, u, t)
        square, radius2 = dot(y, y), self._radius2(x)
        y = y * (radius2 / square.clamp_min(radius2)).sqrt()
        # the squared norm of y after the clip, without a second sum
        return y, v * (self._shrink(self._k(x), square.clamp_max(radius2)) / self._inverse(x))

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        half = self._factor(x) / 2
        angle2 = self._k(x) * half**2 * dot(u, u)
        return self._clip(mobius_add(x, half * tanc_sqrt(angle2) * u, k=self._k(x)))

    def logarithm(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the logarithm, of any length: geoopt's inverse tangent ends at 16.8. That of an antipode is NaN."""
        k, w = self._k(x), y - x
        ww, a, b = dot(w, w), 2 * self._inverse(x), 2 * self._inverse(y)
        # the Moebius sum of -x and y is n / d with |n|^2 = ww d; written in the difference of the points, it is right
        # near the boundary, and near antipodes with d from |n|
        n = a * w + k * ww * x
        bent = k * ww
        d = torch.where(bent > a * b / 2, dot(n, n) / ww.clamp_min(torch.finfo(x.dtype).tiny), a * b - bent)
        same = bent == 0
        root, size = torch.where(same, torch.ones_like(bent), bent.abs()).sqrt(), d.sqrt()
        angle = torch.where(k > 0, torch.atan2(root, size), (root / (a * b).sqrt()).asinh())
        ratio = torch.where(same, 1 / size, angle / root)
        return a * ratio / size * n

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Transport in parallel along the geodesic: rotate in the plane of ``x`` and ``y``, scale by conformal factors.

        The rotation is geoopt's gyration, written as the Cayley transform of a skew matrix in the difference of the
        points, which is accurate near the boundary too.
        """
        k, w = self._k(x), y - x
        xx, yy, ww, xw = dot(x, x), dot(y, y), dot(w, w), dot(x, w)
        denominator = ((1 + k * xx) + (1 + k * yy) - k * ww) / 2

        def skew(u: Tensor) -> Tensor:
            return k * (w * dot(x, u) - x * dot(w, u)) / denominator

        tangent2 = k**2 * (xx * ww - xw**2) / denominator**2
        once = skew(v)
        rotated = v + 2 / (1 + tangent2) * (once + skew(once))
        return rotated * self._factor(x) / self._factor(y)

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        return z * self._inverse(x)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        return c * self._inverse(x)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return self._k(x) * self._factor(x) * (2 * dot(x, v) * v - dot(v, v) * x)


@register(geoopt.StereographicExact)
class StereographicExactGeometry(StereographicGeometry):
    """Geometry of the same models stepped along geodesics."""

    retraction_order = 2
    momentum_transport = "conformal factors"

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self.exponential(x, u)

    def retract_transport(
        self, x: Tensor, u: Tensor, v: Tensor, t: float | Tensor = 1.0, isometric: bool = False
    ) -> tuple[Tensor, Tensor]:
        y = self.exponential(x, u * t)
        return y, v * (self._inverse(y) / self._inverse(x))
