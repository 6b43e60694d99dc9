"""Define the geometry of the unit sphere, whole or cut by a linear subspace."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry
from rsam.geometry.linalg import add_scaled, dot, points_in
from rsam.geometry.registry import register
from rsam.geometry.trigonometry import cos_sqrt, sinc_sqrt

__all__ = ["SphereExactGeometry", "SphereGeometry"]


def _unit(x: Tensor) -> Tensor:
    unit: Tensor = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return unit


def _reflector(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``w`` and ``m`` of the Householder reflection ``I - w w^T / m`` that maps ``x`` to ``e_1`` or ``-e_1``."""
    first = x[..., :1]
    sign = torch.where(first < 0, 1.0, -1.0).to(x.dtype)
    return torch.cat((first - sign, x[..., 1:]), -1), 1 - sign * first


@register(geoopt.Sphere)
class SphereGeometry(Geometry):
    """Geometry of the sphere stepped by normalisation; the retraction runs along great circles, as geodesics do.

    Tangents are carried by parallel transport; geoopt projects them, which is not isometric.
    """

    retraction_order = 2
    isometric = True
    momentum_transport = "projection"
    may_fail = False

    def __init__(self, manifold: geoopt.Manifold) -> None:
        super().__init__(manifold)
        self._whole = manifold.projector is None

    @property
    def _projector(self) -> Tensor | None:
        return None if self._whole else self.manifold.projector

    def _onto_subspace(self, u: Tensor) -> Tensor:
        return u if self._whole else u @ self.manifold.projector.to(u).mT

    def dimension(self, x: Tensor) -> int:
        rank = x.shape[-1] if self._projector is None else round(float(self._projector.trace()))
        return points_in(x, 1) * (rank - 1)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return dot(u, v)

    def squared_norm(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.vdot(u.reshape(-1), u.reshape(-1))

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        squares: Tensor = torch.linalg.vector_norm(u, dim=-1, keepdim=True) ** 2  # half the time of a sum of squares
        return squares

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return self.project(x, g)

    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        u = self._onto_subspace(u)
        return torch.addcmul(u, dot(x, u), x, value=-1)

    def project_point(self, x: Tensor) -> Tensor:
        return _unit(self._onto_subspace(x))

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        # onto the subspace again: over many steps rounding errors would add up. A subclass may project in its own way
        return self.project_point(x + u)

    def retract_transport(
        self, x: Tensor, u: Tensor, v: Tensor, t: float | Tensor = 1.0, isometric: bool = False
    ) -> tuple[Tensor, Tensor]:
        if type(self).project_point is not SphereGeometry.project_point:
            return super().retract_transport(x, u, v, t, isometric)
        y = self._onto_subspace(add_scaled(x, u, t))
        length = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        y = y / length if torch.is_grad_enabled() else y.div_(length)  # in place: y is new, and large
        return y, self.carry(x, y, v) if isometric else self.project(y, v)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        angle2 = dot(u, u)
        # normalised, since over many steps rounding would change the norm
        return _unit(self._onto_subspace(cos_sqrt(angle2) * x + sinc_sqrt(angle2) * u))

    def logarithm(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the logarithm; that of the antipode, to which all ways are equally long, is NaN."""
        # by the tangent of the angle: geoopt's clamped cosine is wrong for close points (its dist(x, x) is 4.5e-4)
        part = self.project(x, y)
        u = self.project(x, part)  # again: near an antipode the first is mostly along x, by the rounding of x
        sine, cosine = torch.linalg.vector_norm(u, dim=-1, keepdim=True), dot(x, y)
        ratio = torch.atan2(sine, cosine) / sine.clamp_min(torch.finfo(x.dtype).tiny)
        is_rounding = 2 * sine <= torch.linalg.vector_norm(part, dim=-1, keepdim=True)
        same = torch.where(cosine > 0, torch.where(sine > 0, ratio, 1.0), torch.nan)
        return torch.where(is_rounding, same, ratio) * u

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        # the reflection in s = x + y, up to its sign: v is orthogonal to x, and so <s, v> is <y, v>
        s = x + y
        # the clamp matters for antipodes only, between which no direction is preferred
        size2 = torch.linalg.vector_norm(s, dim=-1, keepdim=True).square().clamp_min(torch.finfo(x.dtype).eps)
        return torch.addcmul(v, dot(y, v) / size2, s, value=-2)

    def _subspace(self, x: Tensor) -> Tensor | None:
        """Return an orthonormal basis ``(n, r)`` of the subspace, or None for the whole sphere."""
        if self._projector is None:
            return None
        values, vectors = torch.linalg.eigh(self._projector.to(x))
        basis: Tensor = vectors[:, values > 0.5]
        return basis

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        basis = self._subspace(x)
        x = x if basis is None else x @ basis
        w, m = _reflector(x)
        v = torch.cat((torch.zeros_like(x[..., :1]), z), -1) - w * (dot(x[..., 1:], z) / m)
        return v if basis is None else v @ basis.mT

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        basis = self._subspace(x)
        x, c = (x, c) if basis is None else (x @ basis, c @ basis)
        w, m = _reflector(x)
        return c[..., 1:] - x[..., 1:] * (dot(w, c) / m)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return -dot(v, v) * x


@register(geoopt.SphereExact)
class SphereExactGeometry(SphereGeometry):
    """Geometry of the sphere stepped along geodesics."""

    momentum_transport = "projection"

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self.exponential(x, u)
