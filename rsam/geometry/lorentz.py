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


@register(geoopt.Lorentz)
class LorentzGeometry(Geometry):
    r"""Points with :math:`\langle x, x\rangle_L = -k`, of curvature ``-1/k`` (Nickel and Kiela 2018).

    The retraction is the exponential; tangents are carried by parallel transport, in a form that is finite
    between equal points, where geoopt divides zero by zero.

    At distance ``d`` from the origin coordinates are of the size of ``t = cosh(d)``, and the Minkowski product of two
    of them rounds by ``t**2``: it leaves no digit beyond a distance of 8 in single precision, 18 in double, where a
    squared norm may even be negative. So nothing here takes that product. Tangents are measured in the frame that is
    carried from the origin (:meth:`from_coordinates`), which rounds by ``t``, as points themselves do, and lasts
    twice as far.
    """

    retraction_order = 2
    isometric = True

    def dimension(self, x: Tensor) -> int:
        return points_in(x, 1) * (x.shape[-1] - 1)

    # -- metric -------------------------------------------------------------------------------------------------

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        # (0, z) carried from the origin (sqrt(k), 0)
        root, space = self.manifold.k.sqrt(), x[..., 1:]
        time = _dot(space, z) / root
        return torch.cat((time, z + space * time / (root + x[..., :1])), -1)

    def _coordinates(self, x: Tensor, u: Tensor) -> Tensor:
        """Those of a tangent: :meth:`from_coordinates` undone, with digits that :meth:`to_coordinates` would lose."""
        return u[..., 1:] - x[..., 1:] * u[..., :1] / (self.manifold.k.sqrt() + x[..., :1])

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        root, space = self.manifold.k.sqrt(), x[..., 1:]
        return c[..., 1:] + space * (c[..., :1] + _dot(space, c[..., 1:]) / (root + x[..., :1])) / root

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return _dot(self._coordinates(x, u), self._coordinates(x, v))

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return self.from_coordinates(x, self.to_coordinates(x, g))

    def lower_index(self, x: Tensor, t: Tensor) -> Tensor:
        # J t but for a normal covector, which nothing tangent sees; of the size of t's norm and not of its numbers
        z = self._coordinates(x, t)
        return torch.cat((-_dot(x[..., 1:], z) / (self.manifold.k.sqrt() + x[..., :1]), z), -1)

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        return self.raise_index(x, _flip(u))

    def _tangent(self, x: Tensor, space: Tensor) -> Tensor:
        """The tangent of which these are the coordinates of space; a projection along time, which rounds least."""
        return torch.cat((_dot(x[..., 1:], space) / x[..., :1], space), -1)

    # -- curves -------------------------------------------------------------------------------------------------

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self.exponential(x, u)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        angle2 = self.inner(x, u, u) / self.manifold.k
        space = (cosh_sqrt(angle2) * x + sinhc_sqrt(angle2) * u)[..., 1:]
        # geoopt's projx squares a norm, which has no second derivative at the origin
        return torch.cat(((self.manifold.k + _dot(space, space)).sqrt(), space), -1)

    def _seen_from(self, x: Tensor, y: Tensor) -> Tensor:
        """Coordinates of space of ``y`` after the boost that takes ``x`` to the origin, in units of ``sqrt(k)``."""
        x, y = x / self.manifold.k.sqrt(), y / self.manifold.k.sqrt()
        (time, space), (time_y, space_y) = ((a[..., :1], a[..., 1:]) for a in (x, y))
        near = space_y - space * (time_y - _dot(space, space_y) / (1 + time))
        # near the origin that is well; elsewhere apart along and across the direction of x, where large terms cancel
        close = _dot(space, space) < 1
        size = torch.where(close, torch.ones_like(time), _dot(space, space)).sqrt()
        direction = space / size
        along = _dot(direction, space_y)
        across = space_y - along * direction
        ahead = along.clamp_min(0)
        forward = ((ahead - size) * (ahead + size) - size**2 * _dot(across, across)) / (time * ahead + size * time_y)
        radial = torch.where(along > 0, forward, time * along - size * time_y)
        return torch.where(close, near, across + radial * direction)

    def logarithm(self, x: Tensor, y: Tensor) -> Tensor:
        z = self._seen_from(x, y)
        sine = _dot(z, z).sqrt()
        ratio = torch.asinh(sine) / sine.clamp_min(torch.finfo(x.dtype).tiny)
        ratio = torch.where(sine > 0, ratio, torch.ones_like(sine))
        return self.from_coordinates(x, self.manifold.k.sqrt() * ratio * z)

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        z = self._seen_from(x, y)
        slope = _dot(z, self._coordinates(x, v)) / (1 + (1 + _dot(z, z)).sqrt()) / self.manifold.k.sqrt()
        return self._tangent(y, (v + slope * (x + y))[..., 1:])

    # -- second order -------------------------------------------------------------------------------------------

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return self.inner(x, v, v) / self.manifold.k * x
