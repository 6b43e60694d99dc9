"""Make points and tangents from plain arrays: simple arrays give simple points.

An array of zeros becomes the simplest point of a manifold: the first axis, the identity, the origin. So a search for
the smallest array that breaks something ends at a point that is easy to read.
"""

from __future__ import annotations

import math
from functools import singledispatch

import geoopt
import torch
from geoopt.manifolds.siegel.siegel import SiegelManifold
from torch import Tensor

from rsam.geometry import Geometry, Kernel, UnsupportedOperation, geometry_of

__all__ = ["ambient_dtype", "metric_norm", "point_from_array", "remarks_on_points", "tangent_from_array"]


def _amplification(dtype: torch.dtype) -> float:
    """Return a bound on the factor by which the metric may stretch an ambient rounding error at these points.

    With ``eps ** -1/4`` for a length, a squared length keeps half the digits of the dtype, to which this package
    compares numbers.
    """
    return 0.5 * math.pow(torch.finfo(dtype).eps, -0.25)


def ambient_dtype(manifold: geoopt.Manifold, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of points on the manifold: ``dtype``, or its complex counterpart if points are complex."""
    return dtype.to_complex() if isinstance(manifold, SiegelManifold) else dtype


def metric_norm(geometry: Geometry, x: Tensor, u: Tensor) -> float:
    """Return the norm of a tangent in the metric, over the whole tensor."""
    return float(geometry.inner(x, u, u).sum().real.clamp_min(0).sqrt())


# -- points -----------------------------------------------------------------------------------------------------


@singledispatch
def point_from_array(manifold: geoopt.Manifold, a: Tensor) -> Tensor:
    """Make a point on a manifold from an ambient array of the same shape.

    The generic rule projects the sum of ``a`` and the first axis (the identity for matrices, 1 for numbers). Register a
    better rule for a manifold class with ``@rsam.testing.point_from_array.register``.

    Parameters
    ----------
    manifold : geoopt.Manifold
        The manifold.
    a : Tensor
        Array of the shape of a point, ``(*batch, *point)``.

    Returns
    -------
    Tensor
        A point on the manifold, of the shape and dtype of ``a``.

    Examples
    --------
    >>> import geoopt, torch
    >>> point_from_array(geoopt.Sphere(), torch.tensor([0.0, 1.0, 0.0]))
    tensor([0.7071, 0.7071, 0.0000])
    """
    return geometry_of(manifold).project_point(_anchor(a, manifold.ndim) + a)


def remarks_on_points(manifold: geoopt.Manifold) -> list[str]:
    """Remark that the generic rule made the points, if it did; a property may fail because they are poor."""
    if point_from_array.dispatch(type(manifold)) is not point_from_array.dispatch(object):
        return []
    return ["points were made by projx of drawn arrays; if they are poor, see rsam.testing.point_from_array for others"]


def _anchor(a: Tensor, ndim: int) -> Tensor:
    """Return one for numbers, the first axis for vectors, the identity for matrices."""
    if ndim == 0:
        return torch.ones_like(a)
    anchor = torch.zeros_like(a)
    if ndim >= 2:
        anchor.diagonal(dim1=-2, dim2=-1).fill_(1)
    else:
        anchor[..., 0] = 1
    return anchor


def _sym(a: Tensor) -> Tensor:
    return (a + a.mT) * 0.5


def _compress(size: Tensor, largest: float) -> Tensor:
    """Return the factor that maps a size in [0, inf) into [0, largest), and is one for sizes up to 1/2."""
    large = size.clamp_min(0.5)
    return torch.where(size <= 0.5, 1.0, ((1 - 1 / (4 * large)) / large).minimum(largest / large))


def _positive_definite(a: Tensor) -> Tensor:
    """Make a regular ``L D L^T``: ``L`` from the lower triangle of ``a``, ``D`` as 2 to the power of its diagonal."""
    limit = math.log2(_amplification(a.dtype)) / 2  # the metric stretches by the inverse square root of eigenvalues
    n = a.shape[-1]
    lower = a.clamp(-1, 1).tril(-1) / n + torch.eye(n, dtype=a.dtype, device=a.device)
    diagonal = 2 ** a.diagonal(dim1=-2, dim2=-1).clamp(-limit, limit)
    return _sym(lower @ (diagonal.unsqueeze(-1) * lower.mT))


@point_from_array.register
def _(manifold: geoopt.Euclidean, a: Tensor) -> Tensor:
    return a.clone()


@point_from_array.register
def _(manifold: geoopt.Sphere, a: Tensor) -> Tensor:
    anchor = _anchor(a, 1)
    if manifold.projector is not None:
        projector = manifold.projector.to(a)
        # the axis closest to the subspace; its projection is not zero, since the projector is not
        anchor = projector[:, projector.diagonal().argmax()].expand_as(a)
        a = a @ projector.mT
    sum_ = anchor + a
    size = torch.linalg.vector_norm(sum_, dim=-1, keepdim=True)
    return geometry_of(manifold).project_point(torch.where(size > 1e-2, sum_, anchor))


@point_from_array.register
def _(manifold: geoopt.Stiefel, a: Tensor) -> Tensor:
    left, _, right = torch.linalg.svd(_anchor(a, 2) + a, full_matrices=False)
    polar: Tensor = left @ right  # orthonormal even where the sum is singular
    return polar


@point_from_array.register
def _(manifold: geoopt.Stereographic, a: Tensor) -> Tensor:
    k: Tensor = manifold.k.detach().to(a)
    if k == 0:
        return a.clone()
    norm: Tensor = torch.linalg.vector_norm(a, dim=-1, keepdim=True)
    if k > 0:  # at half the distance from which steps of this length could reach the point at infinity
        return _compress(norm / 2, 1.0) * a / k.sqrt()
    # 2 / (1 - r^2) is the stretch of the metric at radius r
    return _compress(norm, 1 - 1 / _amplification(a.dtype)) * a / (-k).sqrt()


@point_from_array.register
def _(manifold: geoopt.Lorentz, a: Tensor) -> Tensor:
    space = a[..., 1:]
    norm = torch.linalg.vector_norm(space, dim=-1, keepdim=True)
    # the metric stretches ambient coordinates by the first of them, as the boost to the point does
    space = space * (_amplification(a.dtype) / 8 / norm.clamp_min(1e-12)).clamp_max(1)
    k = manifold.k.detach().to(a)
    return torch.cat(((k + (space * space).sum(-1, keepdim=True)).sqrt(), space), -1)


@point_from_array.register
def _(manifold: geoopt.SymmetricPositiveDefinite, a: Tensor) -> Tensor:
    return _positive_definite(a)


@point_from_array.register
def _(manifold: geoopt.BirkhoffPolytope, a: Tensor) -> Tensor:
    return geometry_of(manifold).project_point(2 ** a.clamp(-3, 3))


@point_from_array.register
def _(manifold: geoopt.UpperHalf, a: Tensor) -> Tensor:
    return torch.complex(_sym(a.real), _positive_definite(a.imag))


@point_from_array.register
def _(manifold: geoopt.BoundedDomain, a: Tensor) -> Tensor:
    z = _sym(a)
    norm = torch.linalg.matrix_norm(z, 2, keepdim=True)
    return _compress(norm, 1 - 1 / _amplification(a.dtype)) * z


@point_from_array.register
def _(manifold: geoopt.ProductManifold, a: Tensor) -> Tensor:
    pieces = [manifold.take_submanifold_value(a, i) for i in range(manifold.n_manifolds)]
    points = [point_from_array(part, piece) for part, piece in zip(manifold.manifolds, pieces, strict=True)]
    return torch.cat([p.reshape(*a.shape[:-1], -1) for p in points], -1)


@point_from_array.register
def _(manifold: geoopt.Scaled, a: Tensor) -> Tensor:
    return point_from_array(manifold.base, a)


@point_from_array.register
def _(manifold: Kernel, a: Tensor) -> Tensor:
    return manifold.unflatten(point_from_array(manifold.base, manifold.flatten(a)), a.shape)


# -- tangents ---------------------------------------------------------------------------------------------------


def tangent_from_array(manifold: geoopt.Manifold, x: Tensor, a: Tensor, *, longest: float = 0.5) -> Tensor:
    """Make a tangent at ``x`` from an ambient array: project it, and rescale it to a length that suits steps.

    The length of the tangent in the metric is the ambient length of the projection, but at most ``longest``. The
    default is within the injectivity radius of every manifold here, and within the domain of retractions by addition.

    Parameters
    ----------
    manifold : geoopt.Manifold
        The manifold; its registered geometry projects and measures.
    x : Tensor
        A point on the manifold.
    a : Tensor
        Array of the shape of ``x``.
    longest : float
        Largest length in the metric.

    Returns
    -------
    Tensor
        Tangent of the shape of ``x``.

    Examples
    --------
    >>> import geoopt, torch, rsam.testing
    >>> rsam.testing.tangent_from_array(geoopt.Sphere(), torch.tensor([0.0, 1.0]), torch.tensor([3.0, 4.0]))
    tensor([0.5000, 0.0000])
    """
    try:
        geometry = geometry_of(manifold)
    except UnsupportedOperation:  # rsam refuses this metric, but the manifold's own methods can be used
        geometry = Geometry(manifold)
    u = geometry.project(x, a)
    size, ambient_size = float(torch.linalg.vector_norm(u)), float(torch.linalg.vector_norm(a))
    if size <= 1e-6 * ambient_size:  # only rounding errors are left
        return torch.zeros_like(x)
    length = metric_norm(geometry, x, u)
    if not 0 < length < float("inf"):  # the properties should find that the metric is wrong
        return u
    return u * (min(size, longest) / length)
