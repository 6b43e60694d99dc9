"""Second order over a list of parameters: isotropic tangents, geodesic acceleration, second-order steps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rsam.geometry.lists import Manifolds, Tensors, manifold_of, map_points
from rsam.geometry.registry import geometry_of

__all__ = [
    "acceleration",
    "connection",
    "coordinates_shape",
    "from_coordinates",
    "random_coordinates",
    "random_tangent",
    "retract_second_order",
    "to_coordinates",
]


def retract_second_order(points: Tensors, tangents: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    """Step along curves that agree with the geodesics to second order: the retraction where it does, else better.

    Second derivatives of a function along these are its Riemannian Hessian; along a first-order retraction, such as QR
    or the ball's addition, they are not. Differentiable in points and tangents. Errors as for :func:`raise_index`.
    """
    return map_points("retract_second_order", points, tangents, manifolds=manifolds)


def coordinates_shape(points: Tensors, *, manifolds: Manifolds = None) -> list[torch.Size]:
    """Shapes of the coordinates of tangents: ``(*batch, dimension)``, and for a plain point its own.

    A complex plain point has two coordinates a number, in a last dimension.
    """
    if manifolds is None:
        manifolds = [manifold_of(x) for x in points]
    return [geometry_of(manifold).coordinates_shape(x) for x, manifold in zip(points, manifolds, strict=True)]


def from_coordinates(points: Tensors, coordinates: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    r"""Tangents with these coordinates in an orthonormal frame: :math:`v = B_x z` with :math:`\|v\|_x = \|z\|`.

    Coordinates with mean zero and covariance one make isotropic tangents. Differentiable in both arguments.

    Parameters
    ----------
    points : list of Tensor
        Points.
    coordinates : list of Tensor
        Real, of the shapes :func:`coordinates_shape` gives.
    manifolds : list of geoopt.Manifold, optional
        Where the points live, if they do not say so themselves.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> x = torch.tensor([0.0, 1.0, 0.0])
    >>> rsam.geometry.from_coordinates([x], [torch.tensor([3.0, 4.0])], manifolds=[geoopt.Sphere()])
    [tensor([-3.,  0.,  4.])]
    """
    return map_points("from_coordinates", points, coordinates, manifolds=manifolds)


def to_coordinates(points: Tensors, covectors: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    r"""Transpose :math:`B_x^\top c` of :func:`from_coordinates`: of covectors, such as Euclidean gradients.

    The coordinates of a tangent are those of its lowered index.
    """
    return map_points("to_coordinates", points, covectors, manifolds=manifolds)


def random_coordinates(
    points: Tensors,
    *,
    generator: torch.Generator | None = None,
    distribution: Literal["normal", "rademacher"] = "normal",
    manifolds: Manifolds = None,
) -> list[Tensor]:
    """Coordinates of isotropic random tangents: independent, with mean zero and variance one.

    Parameters
    ----------
    points : list of Tensor
        Points.
    generator : torch.Generator, optional
        Source of randomness, on the device of the points.
    distribution : {"normal", "rademacher"}
        Standard normal, or signs with equal chances.
    manifolds : list of geoopt.Manifold, optional
        Where the points live, if they do not say so themselves.

    Raises
    ------
    ValueError
        For another distribution.
    """
    if distribution not in ("normal", "rademacher"):
        raise ValueError(f"distribution must be 'normal' or 'rademacher', got {distribution!r}")
    coordinates = []
    for x, shape in zip(points, coordinates_shape(points, manifolds=manifolds), strict=True):
        z = torch.empty(shape, dtype=x.real.dtype, device=x.device)
        if distribution == "normal":
            coordinates.append(z.normal_(generator=generator))
        else:
            coordinates.append(z.random_(0, 2, generator=generator).mul_(2).sub_(1))  # faster than bernoulli_
    return coordinates


def random_tangent(
    points: Tensors, *, generator: torch.Generator | None = None, manifolds: Manifolds = None
) -> list[Tensor]:
    r"""Isotropic normal tangents: covariance the inverse metric, so that :math:`E\|v\|_x^2` is the dimension.

    Parameters
    ----------
    points : list of Tensor
        Points.
    generator : torch.Generator, optional
        Source of randomness, on the device of the points.
    manifolds : list of geoopt.Manifold, optional
        Where the points live, if they do not say so themselves.
    """
    return map_points("random_tangent", points, manifolds=manifolds, generator=generator)


def acceleration(points: Tensors, velocities: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    r"""Ambient accelerations :math:`\ddot\gamma(0)` of the geodesics with these velocities."""
    return map_points("acceleration", points, velocities, manifolds=manifolds)


def connection(
    points: Tensors, covectors: Tensors, velocities: Tensors, *, manifolds: Manifolds = None
) -> list[Tensor]:
    r"""Covectors :math:`\frac12\nabla_v \langle c, a_x(v)\rangle` with the accelerations :math:`a_x`.

    With the gradient for ``c`` this is what the connection adds to the Euclidean Hessian's product with ``v``.
    """
    return map_points("connection", points, covectors, velocities, manifolds=manifolds)
