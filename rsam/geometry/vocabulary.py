"""The algebra of a *list* of parameters: a model is a point on the product of its parameters' manifolds.

Each function takes the points first and lists of vectors of the same length after them, in geoopt's order
``(x, u, v)``. The manifold of a point is its ``manifold`` attribute (a plain tensor is Euclidean), or is given by
``manifolds`` where the points are plain tensors. Small points that share a manifold, shape, dtype and device are
stacked and treated at once; half-precision points are treated in float32, for which torch has the factorisations.
Plain tensors need neither.
Arguments are never written to; a result may be the argument itself where nothing changes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from rsam.geometry.lists import HALF, Manifolds, Tensors, map_points

__all__ = [
    "component_inner",
    "inner",
    "logarithm",
    "lower_index",
    "norm",
    "pairing",
    "project",
    "project_points",
    "pullback",
    "raise_index",
    "retract",
    "riemannian_gradient",
    "transport",
    "transport_back",
]


def _scalar(terms: Sequence[Tensor]) -> Tensor:
    """Sum of scalars, on the first one's device, in the widest dtype and at least in float32."""
    if not terms:
        return torch.zeros(())
    dtype = functools.reduce(torch.promote_types, (t.dtype for t in terms), torch.float32)
    return torch.stack([t.to(terms[0].device, dtype) for t in terms]).sum()


def pairing(covectors: Tensors, tangents: Tensors) -> Tensor:
    """Sum of ``covector * tangent`` over everything: the derivative of a function along a tangent.

    With ``tangents = riemannian_gradient(points, covectors)`` it is the squared Riemannian norm of the gradient.

    Parameters
    ----------
    covectors, tangents : list of Tensor
        Euclidean gradients, and tangent vectors, of the same shapes.

    Returns
    -------
    Tensor
        Scalar, on the first tensor's device; for complex tensors the real part of ``conj(covector) * tangent``.
    """
    terms = []
    for c, t in zip(covectors, tangents, strict=True):
        if c.dtype in HALF:
            c, t = c.float(), t.float()
        terms.append(torch.vdot(c.reshape(-1), t.reshape(-1)).real)
    return _scalar(terms)


def raise_index(points: Tensors, covectors: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    r"""Tangents that represent covectors in the metric: :math:`\langle t, v\rangle_x = \sum g v` for tangent ``v``.

    Parameters
    ----------
    points : list of Tensor
        Points, shape ``(*batch, *point)`` each.
    covectors : list of Tensor
        Euclidean gradients, of the shapes of the points.
    manifolds : list of geoopt.Manifold, optional
        Where the points live, if they do not say so themselves.

    Returns
    -------
    list of Tensor
        Tangent vectors.

    Raises
    ------
    UnsupportedOperation
        If a manifold has no such operation; names the manifold and the parameter.
    ValueError
        If the lists differ in length.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> x = geoopt.ManifoldParameter(torch.tensor([0.5, 0.0]), manifold=geoopt.PoincareBall())
    >>> rsam.geometry.raise_index([x], [torch.tensor([1.0, 0.0])])
    [tensor([0.1406, 0.0000], grad_fn=...)]
    """
    return map_points("raise_index", points, covectors, manifolds=manifolds)


#: The Riemannian gradient is the raised Euclidean one.
riemannian_gradient = raise_index


def lower_index(points: Tensors, tangents: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    """Covectors that represent tangents: what to leave in ``p.grad`` for an optimizer that raises it.

    Arguments and errors as for :func:`raise_index`, to which it is the inverse on tangents.
    """
    return map_points("lower_index", points, tangents, manifolds=manifolds)


def inner(points: Tensors, us: Tensors, vs: Tensors, *, manifolds: Manifolds = None) -> Tensor:
    """Inner product of two tangents of the product manifold, a scalar. Errors as for :func:`raise_index`."""
    return _scalar([term.sum() for term in map_points("inner", points, us, vs, manifolds=manifolds)])


def norm(points: Tensors, us: Tensors, *, manifolds: Manifolds = None) -> Tensor:
    """Norm of a tangent of the product manifold, a scalar. Errors as for :func:`raise_index`."""
    return inner(points, us, us, manifolds=manifolds).clamp_min(0).sqrt()  # rounding may leave it negative


def component_inner(points: Tensors, us: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    """Squared norms of the smallest independent components, of the shapes of the points (for Adam)."""
    # one at a time: the result has its own, broadcastable shape
    terms = map_points("component_inner", points, us, manifolds=manifolds, stack=False)
    return [term.expand(x.shape) for term, x in zip(terms, points, strict=True)]


def project(points: Tensors, us: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    """Projections of ambient vectors onto the tangent spaces. Errors as for :func:`raise_index`."""
    return map_points("project", points, us, manifolds=manifolds)


def restore_tangents(points: Tensors, us: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    """Tangents that vectors (stored momenta, say) were before they were rounded. Errors as for :func:`raise_index`."""
    return map_points("restore_tangent", points, us, manifolds=manifolds)


def project_points(points: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    """Nearby points on the manifolds for ambient tensors. Errors as for :func:`raise_index`."""
    return map_points("project_point", points, manifolds=manifolds)


def retract(points: Tensors, tangents: Tensors, *, exact: bool = False, manifolds: Manifolds = None) -> list[Tensor]:
    """Step from the points along tangents.

    Parameters
    ----------
    points, tangents : list of Tensor
        Points, and tangent vectors of the same shapes.
    exact : bool
        Follow the geodesic (exponential map) instead of the manifold's retraction.
    manifolds : list of geoopt.Manifold, optional
        Where the points live, if they do not say so themselves.

    Returns
    -------
    list of Tensor
        New points, as plain tensors; differentiable in ``tangents``.

    Raises
    ------
    UnsupportedOperation
        If ``exact`` and a manifold has no exponential; names the manifold and the parameter.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> x = torch.tensor([1.0, 0.0])
    >>> rsam.geometry.retract([x], [torch.tensor([0.0, 1.0])], exact=True, manifolds=[geoopt.Sphere()])
    [tensor([0.5403, 0.8415])]
    """
    return map_points("curve", points, tangents, manifolds=manifolds, exact=exact)


def logarithm(points: Tensors, ends: Tensors, *, manifolds: Manifolds = None) -> list[Tensor]:
    """Tangents at ``points`` whose geodesics reach ``ends`` at time one: ``retract(..., exact=True)`` undone."""
    return map_points("logarithm", points, ends, manifolds=manifolds)


def transport(
    points: Tensors,
    tangents: Tensors,
    ends: Tensors,
    vectors: Tensors,
    *,
    exact: bool = False,
    manifolds: Manifolds = None,
) -> list[Tensor]:
    """Carry tangents ``vectors`` from ``points`` to ``ends = retract(points, tangents, exact=exact)``."""
    return map_points("transport", points, tangents, ends, vectors, manifolds=manifolds, exact=exact)


def transport_back(
    points: Tensors,
    tangents: Tensors,
    ends: Tensors,
    vectors: Tensors,
    *,
    exact: bool = False,
    manifolds: Manifolds = None,
) -> list[Tensor]:
    """Carry tangents ``vectors`` at ``ends = retract(points, tangents, exact=exact)`` back to ``points``."""
    return map_points("transport_back", points, tangents, ends, vectors, manifolds=manifolds, exact=exact)


def pullback(
    points: Tensors,
    tangents: Tensors,
    covectors: Tensors,
    *,
    exact: bool = False,
    manifolds: Manifolds = None,
) -> list[Tensor]:
    r"""Covectors :math:`(D R_x(u))^\top c` at the points, for covectors ``c`` at ``retract(points, tangents)``."""
    return map_points("pullback", points, tangents, covectors, manifolds=manifolds, exact=exact)
