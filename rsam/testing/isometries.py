"""Draw isometries of manifolds, to which steps of optimizers should be equivariant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import geoopt
import torch
from hypothesis import strategies as st
from torch import Tensor

from rsam.geometry import Kernel
from rsam.testing.points import point_from_array
from rsam.testing.strategies import Shape, arrays

__all__ = ["Isometry", "isometries"]

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Isometry:
    """Isometry and its inverse, both differentiable.

    Attributes
    ----------
    name : str
        Name in messages.
    apply, invert : callable
        Map tensors of points.

    Examples
    --------
    >>> import torch, rsam.testing
    >>> mirror = rsam.testing.Isometry("reflection", lambda x: x.flip(-1), lambda y: y.flip(-1))
    >>> print(mirror, mirror.invert(mirror.apply(torch.tensor([0.6, 0.8]))))
    reflection tensor([0.6000, 0.8000])
    """

    name: str
    apply: Map
    invert: Map

    def __str__(self) -> str:
        return self.name


@singledispatch
def isometries(
    manifold: geoopt.Manifold, shape: Shape, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Isometry]:
    """Draw isometries of a manifold that its retraction commutes with; the simplest is the identity.

    Isometries that only the exponential commutes with are drawn only if the exponential is the retraction. These are
    rotations of Stiefel matrices from the right (QR depends on the order of columns), and Moebius translations of the
    ball.

    Parameters
    ----------
    manifold : geoopt.Manifold
        A manifold of geoopt or rsam. For your own class, register a strategy by ``@rsam.testing.isometries.register``.
    shape : tuple of int
        Shape of the points.
    dtype : torch.dtype
        Real dtype of the points.

    Returns
    -------
    hypothesis.strategies.SearchStrategy
        Strategy for objects of :class:`Isometry`.

    Raises
    ------
    NotImplementedError
        If none are known.

    Examples
    --------
    >>> import geoopt, hypothesis, torch, rsam.testing
    >>> x = torch.tensor([0.6, 0.8], dtype=torch.float64)
    >>> rotations = rsam.testing.isometries(geoopt.Sphere(), (2,))
    >>> moving = hypothesis.find(rotations, lambda rotation: (rotation.apply(x) - x).norm() > 0.1)
    >>> torch.dist(moving.invert(moving.apply(x)), x) < 1e-12
    tensor(True)
    """
    raise NotImplementedError(f"no isometries known of {type(manifold).__name__}")


def _matrix(m: Tensor) -> str:
    rounded = torch.view_as_real(m) if m.is_complex() else m
    return str([[round(float(v), 4) for v in row.flatten()] for row in rounded])


def _orthogonal(n: int, dtype: torch.dtype) -> st.SearchStrategy[Tensor]:
    """Draw rotations, or special unitary matrices, as exponentials of skew ones."""
    return arrays((n, n), dtype).map(lambda a: torch.matrix_exp((a.tril(-1) - a.tril(-1).mH) / 2))


def _invertible(n: int, dtype: torch.dtype) -> st.SearchStrategy[Tensor]:
    """Draw matrices of a condition number of at most about e^2."""
    return arrays((n, n), dtype).map(lambda a: torch.matrix_exp(a / 4 / n))


def _rows(m: Tensor, inverse: Tensor, kind: str) -> Isometry:
    """Return the isometry that applies ``m`` to vectors in the last dimension."""
    return Isometry(f"{kind} {_matrix(m)}", lambda x: x @ m.mT, lambda y: y @ inverse.mT)


@isometries.register
def _(manifold: geoopt.Euclidean, shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Isometry]:
    # no rotations, to which optimizers that treat each number alone are not equivariant
    size = torch.Size(shape).numel()

    def permutation(order: list[int], signs: list[int]) -> Isometry:
        index, sign = torch.tensor(order), torch.tensor(signs)
        return Isometry(
            f"permutation {order} with signs {signs}",
            lambda x: (x.flatten()[index] * sign).reshape(x.shape),
            lambda y: (y.flatten() * sign)[index.argsort()].reshape(y.shape),
        )

    signs = st.lists(st.sampled_from([1, -1]), min_size=size, max_size=size)
    return st.builds(permutation, st.permutations(range(size)), signs)


@isometries.register
def _(manifold: geoopt.Sphere, shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Isometry]:
    if manifold.projector is not None:
        raise NotImplementedError("no isometries known of a sphere in a subspace")
    return _orthogonal(shape[-1], dtype).map(lambda q: _rows(q, q.mT, "rotation"))


@isometries.register
def _(manifold: geoopt.Stiefel, shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Isometry]:
    def rotation(q: Tensor, p: Tensor) -> Isometry:
        name = f"rotation {_matrix(q)} from the left, {_matrix(p)} from the right"
        return Isometry(name, lambda x: q @ x @ p, lambda y: q.mT @ y @ p.mT)

    right = _orthogonal(shape[-1], dtype)
    if isinstance(manifold, geoopt.EuclideanStiefel) and not isinstance(manifold, geoopt.EuclideanStiefelExact):
        right = st.just(torch.eye(shape[-1], dtype=dtype))
    return st.builds(rotation, _orthogonal(shape[-2], dtype), right)


@isometries.register
def _(manifold: geoopt.Stereographic, shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Isometry]:
    return _orthogonal(shape[-1], dtype).map(lambda q: _rows(q, q.mT, "rotation"))


@isometries.register
def _moebius(
    manifold: geoopt.StereographicExact, shape: Shape, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Isometry]:
    def translation(q: Tensor, a: Tensor) -> Isometry:
        by = point_from_array(manifold, a / 16)
        return Isometry(
            f"translation by {by.tolist()} after rotation {_matrix(q)}",
            lambda x: manifold.mobius_add(by, x @ q.mT),
            lambda y: manifold.mobius_add(-by, y) @ q,
        )

    return st.builds(translation, _orthogonal(shape[-1], dtype), arrays(shape[-1:], dtype))


isometries.register(geoopt.PoincareBallExact, _moebius)
isometries.register(geoopt.SphereProjectionExact, _moebius)


@isometries.register
def _(manifold: geoopt.Lorentz, shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Isometry]:
    def transform(a: Tensor) -> Isometry:
        # the algebra of boosts, symmetric in the first row and column, and rotations, skew in the rest
        generator = (a.tril(-1) - a.tril(-1).mT) / 8
        generator[0] = generator[:, 0]
        return _rows(torch.matrix_exp(generator), torch.matrix_exp(-generator), "boost and rotation")

    return arrays((shape[-1], shape[-1]), dtype).map(transform)


@isometries.register
def _(
    manifold: geoopt.SymmetricPositiveDefinite, shape: Shape, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Isometry]:
    def congruence(a: Tensor) -> Isometry:
        inverse = torch.linalg.inv(a)
        return Isometry(f"congruence by {_matrix(a)}", lambda x: a @ x @ a.mT, lambda y: inverse @ y @ inverse.mT)

    return _invertible(shape[-1], dtype).map(congruence)


@isometries.register
def _(
    manifold: geoopt.BirkhoffPolytope, shape: Shape, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Isometry]:
    def permutation(rows: list[int], columns: list[int]) -> Isometry:
        r, c = torch.tensor(rows), torch.tensor(columns)
        return Isometry(
            f"permutation of rows {rows} and columns {columns}",
            lambda x: x[..., r, :][..., c],
            lambda y: y[..., c.argsort()][..., r.argsort(), :],
        )

    n = range(shape[-1])
    return st.builds(permutation, st.permutations(n), st.permutations(n))


@isometries.register
def _(manifold: geoopt.UpperHalf, shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Isometry]:
    def affine(a: Tensor, s: Tensor) -> Isometry:
        shift = (s + s.mT) / 2
        m, inverse = a.to(dtype.to_complex()), torch.linalg.inv(a).to(dtype.to_complex())
        return Isometry(
            f"congruence by {_matrix(a)}, then a shift by {_matrix(shift)}",
            lambda z: m @ z @ m.mT + shift,
            lambda w: inverse @ (w - shift) @ inverse.mT,
        )

    n = shape[-1]
    return st.builds(affine, _invertible(n, dtype), arrays((n, n), dtype))


@isometries.register
def _(manifold: geoopt.BoundedDomain, shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Isometry]:
    def congruence(u: Tensor) -> Isometry:
        return Isometry(f"congruence by {_matrix(u)}", lambda z: u @ z @ u.mT, lambda w: u.mH @ w @ u.conj())

    return _orthogonal(shape[-1], dtype.to_complex()).map(congruence)


@isometries.register
def _(
    manifold: geoopt.ProductManifold, shape: Shape, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Isometry]:
    def blocks(parts: tuple[Isometry, ...]) -> Isometry:
        def each(x: Tensor, name: str) -> Tensor:
            pieces = [
                getattr(part, name)(manifold.take_submanifold_value(x, i)).reshape(*x.shape[:-1], -1)
                for i, part in enumerate(parts)
            ]
            return torch.cat(pieces, -1)

        names = ", ".join(map(str, parts))
        return Isometry(f"blocks {names}", lambda x: each(x, "apply"), lambda y: each(y, "invert"))

    parts = zip(manifold.manifolds, manifold.shapes, strict=True)
    return st.tuples(*(isometries(part, part_shape, dtype) for part, part_shape in parts)).map(blocks)


@isometries.register
def _(manifold: geoopt.Scaled, shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Isometry]:
    return isometries(manifold.base, shape, dtype)


@isometries.register
def _(manifold: Kernel, shape: Shape, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Isometry]:
    def lift(inner: Isometry) -> Isometry:
        def through(x: Tensor, f: Map) -> Tensor:
            return manifold.unflatten(f(manifold.flatten(x)), x.shape)

        return Isometry(inner.name, lambda x: through(x, inner.apply), lambda y: through(y, inner.invert))

    flat = manifold.flatten(torch.empty(shape)).shape
    return isometries(manifold.base, tuple(flat), dtype).map(lift)
