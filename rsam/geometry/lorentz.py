"""The hyperboloid model of hyperbolic space."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry, points_in, register
from rsam.geometry.smooth import cosh_sqrt, sinhc_sqrt

__all__ = ["LorentzGeometry"]


def _flip(u: Tensor) -> Tensor:
    """``J u`` with ``J = diag(-1, 1, ...)``, on a new tensor: geoopt's egrad2rgrad flips its argument in place."""
    return torch.cat((-u[..., :1], u[..., 1:]), -1)


def _dot(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).sum(-1, keepdim=True)


def _minkowski(u: Tensor, v: Tensor) -> Tensor:
    return _dot(_flip(u), v)


@register(geoopt.Lorentz)
class LorentzGeometry(Geometry):
    r"""Points with :math:`\langle x, x\rangle_L = -k`, of curvature ``-1/k`` (Nickel and Kiela 2018).

    The retraction is the exponential; tangents are carried by parallel transport, in a form that is finite
    between equal points, where geoopt divides zero by zero.
    """

    retraction_order = 2
    isometric = True

    def dimension(self, x: Tensor) -> int:
        return points_in(x, 1) * (x.shape[-1] - 1)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return _minkowski(u, v)

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return self.project(x, _flip(g))

    def lower_index(self, x: Tensor, t: Tensor) -> Tensor:
        return _flip(t)

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        return u + _minkowski(x, u) / self.manifold.k * x

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self.exponential(x, u)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        angle2 = _minkowski(u, u) / self.manifold.k
        # rounding may make a short vector timelike; where, since clamp has no second derivative at zero
        angle2 = torch.where(angle2 < 0, torch.zeros_like(angle2), angle2)
        space = (cosh_sqrt(angle2) * x + sinhc_sqrt(angle2) * u)[..., 1:]
        # geoopt's projx squares a norm, which has no second derivative at the origin
        return torch.cat(((self.manifold.k + _dot(space, space)).sqrt(), space), -1)

    def logarithm(self, x: Tensor, y: Tensor) -> Tensor:
        # by the hyperbolic sine of the distance, which tells close points apart
        u = self.project(x, y)
        sine = (_minkowski(u, u) / self.manifold.k).clamp_min(0).sqrt()
        ratio = torch.asinh(sine) / sine.clamp_min(torch.finfo(x.dtype).tiny)
        return torch.where(sine > 0, ratio, torch.ones_like(sine)) * u

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        carried = v + _minkowski(y, v) / (self.manifold.k - _minkowski(x, y)) * (x + y)
        return self.project(y, carried)

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        # (0, z) carried from the origin (sqrt(k), 0)
        root, space = self.manifold.k.sqrt(), x[..., 1:]
        time = _dot(space, z) / root
        return torch.cat((time, z + space * time / (root + x[..., :1])), -1)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        root, space = self.manifold.k.sqrt(), x[..., 1:]
        return c[..., 1:] + space * (c[..., :1] + _dot(space, c[..., 1:]) / (root + x[..., :1])) / root

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return _minkowski(v, v) / self.manifold.k * x
