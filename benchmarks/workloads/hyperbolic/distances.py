"""Hyperbolic distances that keep their digits far from the origin, where geoopt's lose them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ball_distance", "hyperboloid_distance", "hyperboloid_distances"]


def ball_distance(x: Tensor, y: Tensor) -> Tensor:
    """Measure distance in the Poincaré ball of curvature -1 (Nickel and Kiela 2017, eq. 1).

    geoopt's own is at most 16.8, in double precision too, and flat from there, where points of the ball that it
    allows are up to 24 apart.
    """
    room = (1 - x.square().sum(-1)) * (1 - y.square().sum(-1))
    excess = 2 * (x - y).square().sum(-1) / room
    return torch.log1p(excess + (excess * (excess + 2)).sqrt())  # arcosh(1 + excess), also where that is small


def hyperboloid_distance(x: Tensor, y: Tensor, k: Tensor) -> Tensor:
    r"""Measure distance on the hyperboloid of curvature ``-1/k``, by the law of cosines in half angles.

    :math:`\sinh^2(d/2) = \sinh^2((r_x - r_y)/2) + \sinh r_x \sinh r_y\,|n_x - n_y|^2/4` with distances ``r`` from the
    origin and directions ``n``. geoopt takes the difference of products of coordinates, which in double precision has
    no digit of the distance of points that are close together and 18 away from the origin.

    Parameters
    ----------
    x, y : Tensor
        Points, shape ``(..., dimension + 1)``, that broadcast.
    k : Tensor
        Of the manifold.
    """
    (size_x, direction_x), (size_y, direction_y) = _polar(x, k), _polar(y, k)
    return _distance(size_x, size_y, (direction_x - direction_y).square().sum(-1), k)


def hyperboloid_distances(x: Tensor, y: Tensor, k: Tensor) -> Tensor:
    """Measure distances of ``n`` points to each of ``m``, shape ``(n, m)``, in the memory of the result."""
    (size_x, direction_x), (size_y, direction_y) = _polar(x, k), _polar(y, k)
    # the default is a product of matrices, whose difference has no digits for near directions
    gaps = torch.cdist(direction_x, direction_y, compute_mode="donot_use_mm_for_euclid_dist")
    return _distance(size_x[:, None], size_y, gaps.square(), k)


def _polar(x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Hyperbolic sine of the distance from the origin, in units of ``sqrt(k)``, and direction."""
    space = x[..., 1:] / k.sqrt()
    size = space.norm(dim=-1).clamp_min(torch.finfo(x.dtype).tiny)
    return size, space / size[..., None]


def _distance(size_x: Tensor, size_y: Tensor, gap2: Tensor, k: Tensor) -> Tensor:
    half = ((size_x.asinh() - size_y.asinh()) / 2).sinh().square() + size_x * size_y * gap2 / 4
    # the root has no derivative at 0, where points are the same
    apart = half > 0
    return 2 * k.sqrt() * torch.where(apart, torch.where(apart, half, torch.ones_like(half)).sqrt().asinh(), half)
