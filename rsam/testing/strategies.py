"""Draw manifolds, points on them, tangents and step sizes, by Hypothesis.

All strategies are built on plain arrays of floats, which shrink to zeros and small integers, hence to the points that
:func:`rsam.testing.point_from_array` makes from these: the first axis, the identity, the origin.
"""

from __future__ import annotations

from collections.abc import Callable

import geoopt
import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from rsam.geometry import CanonicalStiefel, KernelSphere, KernelStiefel
from rsam.testing.points import ambient_dtype, point_from_array, tangent_from_array

__all__ = ["arrays", "manifolds", "points", "step_sizes", "tangents"]

Shape = tuple[int, ...]

# Half-precision floats are short to read, and coarse enough to avoid underflow.
_floats = st.floats(-4, 4, width=16, allow_subnormal=False)
_double = torch.float64


def arrays(shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Tensor]:
    """Draw tensors of a shape, with entries in [-4, 4].

    Parameters
    ----------
    shape : tuple of int
        Shape of the tensors.
    dtype : torch.dtype
        Real or complex.

    Returns
    -------
    hypothesis.strategies.SearchStrategy
        Strategy for tensors; they shrink to zeros.

    Examples
    --------
    >>> import hypothesis, rsam.testing
    >>> hypothesis.find(rsam.testing.arrays((2,)), lambda a: a.sum() > 1)
    tensor([0., 2.], dtype=torch.float64)
    """
    # without a fill, since that would make constant arrays simpler than arrays with one nonzero entry
    real = hnp.arrays(np.float64, shape, elements=_floats, fill=st.nothing()).map(torch.from_numpy)
    if dtype.is_complex:
        return st.builds(torch.complex, real, real).map(lambda z: z.to(dtype))
    return real.map(lambda a: a.to(dtype))


def points(manifold: geoopt.Manifold, shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Tensor]:
    """Draw points of a manifold: near a simple one, near the boundary, and of large norm.

    Distances from the boundary and norms are bounded by the digits of ``dtype``, so that the metric amplifies rounding
    errors at most by ``eps ** -1/2``.

    Parameters
    ----------
    manifold : geoopt.Manifold
        Manifold of the points; for your own class see :func:`rsam.testing.point_from_array`.
    shape : tuple of int
        Shape of the tensors, ``(*batch, *point)``.
    dtype : torch.dtype
        Dtype of the points; for complex manifolds, of their parts.

    Returns
    -------
    hypothesis.strategies.SearchStrategy
        Strategy for tensors of this shape.

    Examples
    --------
    >>> import geoopt, hypothesis
    >>> x = hypothesis.find(points(geoopt.PoincareBall(), (2,)), lambda x: x.norm() > 0.9)
    >>> bool(0.9 < x.norm() < 1)
    True
    """
    scales = st.sampled_from([1.0, 16.0])  # the larger scale gives points near the boundary
    return st.builds(
        lambda a, scale: point_from_array(manifold, scale * a), arrays(shape, ambient_dtype(manifold, dtype)), scales
    )


def tangents(x: Tensor, manifold: geoopt.Manifold, *, longest: float = 0.5) -> st.SearchStrategy[Tensor]:
    """Draw tangent vectors at a point, zero included.

    Parameters
    ----------
    x : Tensor
        A point.
    manifold : geoopt.Manifold
        The manifold of the point.
    longest : float
        Largest length in the metric.

    Returns
    -------
    hypothesis.strategies.SearchStrategy
        Strategy for tensors of the shape of ``x``.

    Examples
    --------
    >>> import geoopt, hypothesis, torch, rsam.testing
    >>> x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> hypothesis.find(rsam.testing.tangents(x, geoopt.Sphere()), lambda u: u.norm() > 0.4)
    tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    return arrays(tuple(x.shape), x.dtype).map(lambda a: tangent_from_array(manifold, x, a, longest=longest))


def step_sizes() -> st.SearchStrategy[float]:
    """Draw step sizes in (0, 1], of all magnitudes down to ``2**-16``; the simplest is 1.

    Returns
    -------
    hypothesis.strategies.SearchStrategy
        Strategy for floats, powers of two.

    Examples
    --------
    >>> import hypothesis, rsam.testing
    >>> hypothesis.find(rsam.testing.step_sizes(), lambda t: t < 0.3)
    0.25
    """
    return st.integers(0, 16).map(lambda k: 2.0**-k)


def _fixed(make: Callable[[], geoopt.Manifold], *shapes: Shape) -> st.SearchStrategy[tuple[geoopt.Manifold, Shape]]:
    return st.sampled_from(shapes).map(lambda shape: (make(), shape))


def _curved(
    make: Callable[[Tensor], geoopt.Manifold], low: float, high: float
) -> st.SearchStrategy[tuple[geoopt.Manifold, Shape]]:
    """Draw manifolds of vectors with a curvature in a range."""
    curvatures = st.floats(low, high, width=16).map(lambda k: torch.tensor(k, dtype=_double))
    return st.tuples(curvatures.map(make), st.sampled_from([(2,), (3,), (2, 3)]))


_vectors: tuple[Shape, ...] = ((2,), (3,), (2, 4))
_matrices: tuple[Shape, ...] = ((3, 1), (2, 2), (3, 2), (2, 5, 2), (4, 3))
_squares: tuple[Shape, ...] = ((2, 2), (3, 3), (2, 3, 3))


def _subspace(columns: int) -> Tensor:
    """Draw spans of a few simple vectors in four dimensions."""
    return torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 2]], dtype=_double)[:, :columns]


def _product() -> geoopt.Manifold:
    parts = (geoopt.Sphere(), 3), (CanonicalStiefel(), (3, 2)), (geoopt.PoincareBall(), 2)
    return geoopt.ProductManifold(*parts).double()


def _stereographic_product() -> geoopt.Manifold:
    return geoopt.StereographicProductManifold((geoopt.SphereProjection(), 2), (geoopt.PoincareBall(), 2)).double()


def manifolds() -> st.SearchStrategy[tuple[geoopt.Manifold, Shape]]:
    """Draw pairs of a manifold and a shape of tensors on it.

    They cover every manifold of geoopt and :mod:`rsam.geometry`, of various curvatures and shapes, in float64.

    Returns
    -------
    hypothesis.strategies.SearchStrategy
        Strategy for pairs of a :class:`geoopt.Manifold` and a tuple of int.

    Examples
    --------
    >>> import hypothesis
    >>> manifold, shape = hypothesis.find(manifolds(), lambda pair: pair[0].name == "Lorentz")
    >>> shape
    (2,)
    """
    return st.one_of(
        _fixed(geoopt.Euclidean, (1,), (2, 3)),
        _fixed(lambda: geoopt.Euclidean(1), *_vectors),
        _fixed(geoopt.Sphere, *_vectors),
        _fixed(geoopt.SphereExact, *_vectors),
        _fixed(lambda: geoopt.Sphere(intersection=_subspace(3)), (4,), (2, 4)),
        _fixed(lambda: geoopt.Sphere(complement=_subspace(1)), (4,), (2, 4)),
        _fixed(geoopt.EuclideanStiefel, *_matrices),
        _fixed(geoopt.EuclideanStiefelExact, *_matrices),
        _fixed(geoopt.CanonicalStiefel, *_matrices),
        _fixed(CanonicalStiefel, *_matrices),
        _curved(geoopt.Stereographic, -2, 2),
        _curved(geoopt.StereographicExact, -2, 2),
        _curved(geoopt.PoincareBall, 0.25, 2),
        _curved(geoopt.PoincareBallExact, 0.25, 2),
        _curved(geoopt.SphereProjection, 0.25, 2),
        _curved(geoopt.SphereProjectionExact, 0.25, 2),
        _curved(geoopt.Lorentz, 0.5, 2),
        _fixed(geoopt.SymmetricPositiveDefinite, *_squares),
        _fixed(geoopt.BirkhoffPolytope, *_squares),
        _fixed(geoopt.UpperHalf, *_squares),
        _fixed(geoopt.BoundedDomain, *_squares),
        _fixed(_product, (11,), (2, 11)),
        _fixed(_stereographic_product, (4,), (2, 4)),
        _fixed(lambda: geoopt.Scaled(geoopt.PoincareBall(), 2.0).double(), *_vectors),
        _fixed(lambda: geoopt.Scaled(geoopt.SphereExact(), 0.5).double(), *_vectors),
        _fixed(KernelSphere, (2, 1, 2, 2), (2, 2, 1, 1, 2)),
        _fixed(KernelStiefel, (2, 1, 2, 2), (4, 1, 1, 3)),
        _fixed(lambda: KernelStiefel(True, ndim=2), (2, 3), (3, 2)),
    )
