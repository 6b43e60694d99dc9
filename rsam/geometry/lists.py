"""How one operation of a geometry is applied to a list of points: equal small ones stacked, half precision upcast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry, UnsupportedOperation
from rsam.geometry.manifolds.euclidean import EuclideanGeometry
from rsam.geometry.registry import geometry_of

__all__ = ["HALF", "Manifolds", "Tensors", "all_finite", "is_plain", "manifold_of", "map_points"]

_EUCLIDEAN = geoopt.Euclidean()
HALF = (torch.bfloat16, torch.float16)
# Stacking saves launches and costs copies; measured to pay below a few thousand elements a point.
_STACK_BELOW = 2048

Tensors = Sequence[Tensor]
Manifolds = Sequence[geoopt.Manifold] | None


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is Euclidean, so that any optimizer may step it."""
    return isinstance(manifold_of(tensor), geoopt.Euclidean)


def manifold_of(tensor: Tensor) -> geoopt.Manifold:
    """Return the manifold a tensor lives on; :class:`geoopt.Euclidean` for a plain one."""
    return getattr(tensor, "manifold", _EUCLIDEAN)


def map_points(
    operation: str, points: Tensors, *vectors: Tensors, manifolds: Manifolds = None, stack: bool = True, **options: Any
) -> list[Tensor]:
    """Apply one operation of :class:`Geometry` to every point, stacking equals."""
    if manifolds is None:
        manifolds = [manifold_of(x) for x in points]
    for column in (*vectors, manifolds):
        if len(column) != len(points):
            raise ValueError(f"{operation} got {len(points)} points but a list of {len(column)} beside them")
    rows = list(zip(points, *vectors, strict=True))
    results: dict[int, Tensor] = {}
    groups: dict[Any, tuple[Geometry, list[int]]] = {}
    for i, (x, manifold) in enumerate(zip(points, manifolds, strict=True)):
        try:
            geometry = geometry_of(manifold)
            if not stack or x.numel() > _STACK_BELOW or isinstance(geometry, EuclideanGeometry):
                results[i] = _apply(geometry, operation, rows[i], options)
            else:
                groups.setdefault((geometry.key(), x.shape, x.dtype, x.device), (geometry, []))[1].append(i)
        except UnsupportedOperation as error:
            raise _at(error, i, x) from error
    for geometry, members in groups.values():
        try:
            if len(members) == 1:
                results[members[0]] = _apply(geometry, operation, rows[members[0]], options)
                continue
            stacked = [torch.stack(column) for column in zip(*(rows[i] for i in members), strict=True)]
            parts = _apply(geometry, operation, stacked, options).unbind()
        except UnsupportedOperation as error:
            raise _at(error, members[0], points[members[0]]) from error
        results.update(zip(members, parts, strict=True))
    return [results[i] for i in range(len(points))]


def _apply(geometry: Geometry, operation: str, arguments: Sequence[Tensor], options: dict[str, Any]) -> Tensor:
    dtype = arguments[0].dtype
    try:
        if dtype not in HALF or isinstance(geometry, EuclideanGeometry):
            return getattr(geometry, operation)(*arguments, **options)
        return getattr(geometry, operation)(*(a.float() for a in arguments), **options).to(dtype)
    except UnsupportedOperation:
        raise
    except NotImplementedError as error:  # as geoopt's abstract methods raise it, without a word
        raise geometry.unsupported(operation) from error


def _at(error: UnsupportedOperation, index: int, x: Tensor) -> UnsupportedOperation:
    located = UnsupportedOperation(f"{error} (parameter {index} of the list, shape {tuple(x.shape)})")
    located.index = index
    return located


@torch.no_grad()
def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every number is finite; one synchronisation of the device unless something looks wrong."""
    tensors = [t for t in tensors if t.numel()]
    if not tensors:
        return True
    sums = [t.sum() for t in tensors]  # cheapest to look at; may overflow where each number is finite
    total = (torch.stack([s.real.to(sums[0].device, torch.float32) for s in sums]) * 0).sum()
    return bool(total == 0) or all(bool(torch.isfinite(t).all()) for t in tensors)
