"""Compute hyperbolic distances accurately far from the origin, where geoopt's lose all digits."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ball_distance", "hyperboloid_distance", "hyperboloid_distances"]


def ball_distance(x: Tensor, y: Tensor) -> Tensor:
    """Compute the distance in the Poincaré ball of curvature -1 (Nickel and Kiela 2017, eq. 1).

    geoopt's own distance never exceeds 16.8, even in double precision, and has no gradient there, although points that
    geoopt allows in the ball are up to 24 apart.
    """
    room = (1 - x.square().sum(-1)) * (1 - y.square().sum(-1))
    excess = 2 * (x - y).square().sum(-1) / room
    return torch.log1p(excess + (excess * (excess + 2)).sqrt())  # arcosh(1 + excess), accurate for small excess too


def hyperboloid_distance(x: Tensor, y: Tensor, k: Tensor) -> Tensor:
    r"""Compute the distance on the hyperboloid of curvature ``-1/k``, by the law of cosines in half angles.

    :math:`\sinh^2(d/2) = \sinh^2((r_x - r_y)/2) + \sinh r_x \sinh r_y\,|n_x - n_y|^2/4` with distances ``r`` from the
    origin and directions ``n``. geoopt subtracts products of coordinates; for points that are close together and 18
    away from the origin, no digit of the difference is right in double precision.

    Parameters
    ----------
    x, y : Tensor
        Points, shape ``(..., dimension + 1)``, that broadcast.
    k : Tensor
        Constant of the manifold, whose curvature is ``-1/k``.
    """
    (size_x, direction_x), (size_y, direction_y) = _polar(x, k), _polar(y, k)
    return _distance(size_x, size_y, (direction_x - direction_y).square().sum(-1), k)


def hyperboloid_distances(x: Tensor, y: Tensor, k: Tensor) -> Tensor:
    """Compute the distances of ``n`` points to each of ``m``, shape ``(n, m)``, without larger temporaries."""
    (size_x, direction_x), (size_y, direction_y) = _polar(x, k), _polar(y, k)
    # the default subtracts matrix products, which has no right digit for directions that are close
    gaps = torch.cdist(direction_x, direction_y, compute_mode="donot_use_mm_for_euclid_dist")
    return _distance(size_x[:, None], size_y, gaps.square(), k)


def _polar(x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hyperbolic sine of the distance from the origin, in units of ``sqrt(k)``, and the direction."""
    space = x[..., 1:] / k.sqrt()
    size = space.norm(dim=-1).clamp_min(torch.finfo(x.dtype).tiny)
    return size, space / size[..., None]


def _distance(size_x: Tensor, size_y: Tensor, gap2: Tensor, k: Tensor) -> Tensor:
    half = ((size_x.asinh() - size_y.asinh()) / 2).sinh().square() + size_x * size_y * gap2 / 4
    # the root has no derivative at 0, where the points are equal
    apart = half > 0
    return 2 * k.sqrt() * torch.where(apart, torch.where(apart, half, torch.ones_like(half)).sqrt().asinh(), half)
