"""Define the geometry of the hyperboloid model of hyperbolic space."""

from __future__ import annotations

import math

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry
from rsam.geometry.linalg import dot, points_in
from rsam.geometry.registry import register
from rsam.geometry.trigonometry import cosh_sqrt, sinhc_sqrt

__all__ = ["LorentzGeometry"]


def _flip(u: Tensor) -> Tensor:
    """Return ``J u`` with ``J = diag(-1, 1, ...)`` as a new tensor; geoopt's egrad2rgrad flips in place."""
    return torch.cat((-u[..., :1], u[..., 1:]), -1)


def _tangent(x: Tensor, space: Tensor) -> Tensor:
    """Return the tangent with these spatial coordinates: a projection along time, which rounds least."""
    return torch.cat((dot(x[..., 1:], space) / x[..., :1], space), -1)


def _from_frame(root: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """Transport the tangent ``(0, z)`` from the origin ``(root, 0)`` to ``x``."""
    space = x[..., 1:]
    time = dot(space, z) / root
    return torch.cat((time, z + space * time / (root + x[..., :1])), -1)


def _in_frame(root: Tensor, x: Tensor, u: Tensor) -> Tensor:
    """Invert :func:`_from_frame`, accurately; :func:`_on_frame` of ``J u`` would lose digits."""
    return u[..., 1:] - x[..., 1:] * u[..., :1] / (root + x[..., :1])


def _on_frame(root: Tensor, x: Tensor, c: Tensor) -> Tensor:
    """Pair a covector with the frame: apply the transpose of :func:`_from_frame`."""
    space = x[..., 1:]
    return c[..., 1:] + space * (c[..., :1] + dot(space, c[..., 1:]) / (root + x[..., :1])) / root


def _raised(root: Tensor, x: Tensor, c: Tensor) -> Tensor:
    """Return the tangent that represents a covector; for ``J u`` it is the orthogonal projection of ``u``."""
    return _from_frame(root, x, _on_frame(root, x, c))


def _farthest(x: Tensor) -> float:
    """Return the size of coordinates beyond which tangents are mere rounding: 2**23 or 2**52, at distances 16 or 36."""
    return 1 / torch.finfo(x.dtype).eps


def _longest(x: Tensor) -> float:
    """Return the longest step in units of ``sqrt(k)``: it passes the farthest point, but is too short to overflow."""
    return math.log(_farthest(x)) + 2


def _end(k: Tensor, space: Tensor) -> tuple[Tensor, Tensor]:
    """Return the point with these spatial coordinates, scaled to the farthest point if beyond, and their scale."""
    most = _farthest(space) ** 2
    inside = (most / dot(space, space).clamp_min(most)).sqrt()  # exactly one unless the point is too far
    space = space * inside
    # geoopt's projx squares a norm, which has no second derivative at the origin
    return torch.cat(((k + dot(space, space)).sqrt(), space), -1), inside


def _boosted_to_origin(root: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the spatial coordinates of ``y`` after the boost that takes ``x`` to the origin, in units of ``root``."""
    x, y = x / root, y / root
    (time, space), (time_y, space_y) = ((a[..., :1], a[..., 1:]) for a in (x, y))
    near = space_y - space * (time_y - dot(space, space_y) / (1 + time))
    # accurate near the origin; elsewhere large terms cancel, unless parts along and across x are computed apart
    square = dot(space, space)
    close = square < 1
    size = torch.where(close, torch.ones_like(square), square).sqrt()
    direction = space / size
    along = dot(direction, space_y)
    across = space_y - along * direction
    ahead = along.clamp_min(0)
    forward = ((ahead - size) * (ahead + size) - size**2 * dot(across, across)) / (time * ahead + size * time_y)
    radial = torch.where(along > 0, forward, time * along - size * time_y)
    return torch.where(close, near, across + radial * direction)


@register(geoopt.Lorentz)
class LorentzGeometry(Geometry):
    r"""Geometry of the points with :math:`\langle x, x\rangle_L = -k`, of curvature ``-1/k`` (Nickel and Kiela 2018).

    The retraction is the exponential; tangents are carried by parallel transport, in a form that is finite
    between equal points, where geoopt divides zero by zero.

    At distance ``d`` from the origin coordinates have the size ``t = cosh(d)``, and the Minkowski product of two such
    vectors has rounding errors of the order of ``t**2``. Beyond a distance of 8 in single precision, 18 in double, no
    digit of it is right, and a squared norm may even be negative. So tangents are measured in the frame that is
    transported from the origin (:meth:`from_coordinates`). Its rounding errors are of the order of ``t``, as those of
    points themselves, so that it can be used twice as far out. :meth:`project` cannot be improved in this way: vectors
    orthogonal to the tangent space are long, and rounding errors have parts along them.

    Curves end where even that fails, at a distance of 16 in single precision and 36 in double (for ``k = 1``), as they
    do at geoopt's edge of the Poincare ball. Without an end a step of length 88 would overflow in single precision.
    """

    retraction_order = 2
    isometric = True
    momentum_transport = "parallel"
    may_fail = False

    def _root(self, x: Tensor) -> Tensor:
        radius: Tensor = self.manifold.k.to(x.dtype).sqrt()  # geoopt's k may have less precision than the points
        return radius

    def _length2(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the squared length of a tangent in units of ``sqrt(k)``, whatever a subclass's inner product is."""
        root = self._root(x)
        z = _in_frame(root, x, u) / root
        return dot(z, z)

    def dimension(self, x: Tensor) -> int:
        return points_in(x, 1) * (x.shape[-1] - 1)

    # -- metric -------------------------------------------------------------------------------------------------

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        root = self._root(x)
        return dot(_in_frame(root, x, u), _in_frame(root, x, v))

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return _raised(self._root(x), x, g)

    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        # J u up to a normal covector, which pairs to zero with tangents; the result has the size of the norm of u, not
        # of its coordinates
        root = self._root(x)
        z = _in_frame(root, x, u)
        return torch.cat((-dot(x[..., 1:], z) / (root + x[..., :1]), z), -1)

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        return _raised(self._root(x), x, _flip(u))

    def restore_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return _tangent(x, u[..., 1:])

    def project_point(self, x: Tensor) -> Tensor:
        space = x[..., 1:]
        return torch.cat(((self.manifold.k.to(x.dtype) + dot(space, space)).sqrt(), space), -1)

    # -- curves -------------------------------------------------------------------------------------------------

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self.exponential(x, u)

    def retract_transport(
        self, x: Tensor, u: Tensor, v: Tensor, t: float | Tensor = 1.0, isometric: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Follow the geodesic along ``t u``, and carry ``v`` in parallel along it: one hyperbola for both."""
        k = self.manifold.k.to(x.dtype)
        root = k.sqrt()
        z = _in_frame(root, x, u)
        along, square = dot(z, z if v is u else _in_frame(root, x, v)), dot(z, z)
        angle = (square * (t * t) / k).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
        short = (_longest(x) / angle).clamp_max(1)
        angle, t = angle * short, short * t
        # torch's sinh is slow, and a difference of exponentials is inaccurate for small angles
        grown = angle.exp()
        cosh, half = (grown + grown.reciprocal()) / 2, (angle / 2).tanh()
        sinhc = (cosh + 1) * half / angle
        y = torch.addcmul(x * cosh, u, sinhc * t)
        along = along * (sinhc * t / k)
        # (cosh - 1) / angle^2 = sinhc tanh(angle / 2) / angle
        w = torch.addcmul(torch.addcmul(v, along, x), u, along * t * half / angle)
        y, inside = _end(k, y[..., 1:])
        return y, _tangent(y, w[..., 1:] * inside)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        angle2, most = self._length2(x, u), _longest(x) ** 2
        short2 = most / angle2.clamp_min(most)
        angle2, u = angle2 * short2, u * short2.sqrt()
        space = (cosh_sqrt(angle2) * x + sinhc_sqrt(angle2) * u)[..., 1:]
        return _end(self.manifold.k.to(x.dtype), space)[0]

    def logarithm(self, x: Tensor, y: Tensor) -> Tensor:
        root = self._root(x)
        z = _boosted_to_origin(root, x, y)
        square = dot(z, z)
        sine = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
        ratio = torch.where(square > 0, sine.asinh() / sine, torch.ones_like(square))
        return _from_frame(root, x, root * ratio * z)

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        root = self._root(x)
        z = _boosted_to_origin(root, x, y)
        slope = dot(z, _in_frame(root, x, v)) / (1 + (1 + dot(z, z)).sqrt()) / root
        return _tangent(y, (v + slope * (x + y))[..., 1:])

    # -- second order -------------------------------------------------------------------------------------------

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        return _from_frame(self._root(x), x, z)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        return _on_frame(self._root(x), x, c)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return self._length2(x, v) * x
