"""Define geometries of products and rescalings of other manifolds."""

from __future__ import annotations

import copyreg
import math
import types
from collections.abc import Iterable
from typing import Any

import geoopt
import torch
from torch import Tensor

from rsam.geometry.forwarding import DelegatingGeometry, ForwardingGeometry
from rsam.geometry.registry import geometry_of, register

__all__ = ["ProductGeometry", "ScaledGeometry"]


def _flat(piece: Tensor, x: Tensor) -> Tensor:
    """Flatten each point, also in a batch without points, for which ``reshape(..., -1)`` fails."""
    batch = x.shape[:-1]
    return piece.reshape(*batch, math.prod(piece.shape[len(batch) :]))


@register(geoopt.ProductManifold)
class ProductGeometry(ForwardingGeometry):
    """Geometry that works part by part, on the slices of the last dimension into which geoopt packs points."""

    def __init__(self, manifold: geoopt.Manifold) -> None:
        super().__init__(manifold)
        self._parts = [geometry_of(part) for part in manifold.manifolds]
        self.retraction_order = min(part.retraction_order for part in self._parts)
        self.isometric = all(part.isometric for part in self._parts)
        self.momentum_transport = "as the parts"
        self.may_fail = any(part.may_fail for part in self._parts)
        self.numbers = frozenset.intersection(*(part.numbers for part in self._parts))

    def _split(self, x: Any) -> list[Any]:
        if not isinstance(x, Tensor):  # a number
            return [x] * len(self._parts)
        return [self.manifold.take_submanifold_value(x, i) for i in range(len(self._parts))]

    def _forward(self, operation: str, x: Tensor, *vectors: Any, **options: Any) -> Any:
        columns = zip(*(self._split(t) for t in (x, *vectors)), strict=True)
        results = [
            getattr(part, operation)(*column, **options) for part, column in zip(self._parts, columns, strict=True)
        ]

        def packed(pieces: Iterable[Tensor]) -> Tensor:
            return torch.cat([_flat(piece, x) for piece in pieces], -1)

        if isinstance(results[0], tuple):
            return tuple(packed(pieces) for pieces in zip(*results, strict=True))
        return packed(results)

    def dimension(self, x: Tensor) -> int:
        return sum(part.dimension(piece) for part, piece in zip(self._parts, self._split(x), strict=True))

    def coordinates_shape(self, x: Tensor) -> torch.Size:
        return torch.Size((*x.shape[:-1], sum(self._dimensions(x))))

    def _dimensions(self, x: Tensor) -> list[int]:
        """Return the dimension of each part of one point."""
        one = x.detach().reshape(-1, x.shape[-1])[0] if x.numel() else x.new_zeros(x.shape[-1])
        return [part.dimension(piece) for part, piece in zip(self._parts, self._split(one), strict=True)]

    def _split_coordinates(self, x: Tensor, z: Tensor) -> list[Tensor]:
        pieces = z.split(self._dimensions(x), -1)
        # a part may be a batch of points, or of any shape if it is Euclidean
        shapes = [part.coordinates_shape(piece) for part, piece in zip(self._parts, self._split(x), strict=True)]
        return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        columns = zip(self._parts, self._split(x), self._split_coordinates(x, z), strict=True)
        return torch.cat([_flat(part.from_coordinates(y, w), x) for part, y, w in columns], -1)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        columns = zip(self._parts, self._split(x), self._split(c), strict=True)
        return torch.cat([_flat(part.to_coordinates(y, d), x) for part, y, d in columns], -1)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        columns = zip(self._parts, self._split(x), self._split(u), self._split(v), strict=True)
        terms = [_flat(part.inner(*column), x).sum(-1, keepdim=True) for part, *column in columns]
        return torch.cat(terms, -1).sum(-1, keepdim=True)

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        pieces = zip(self._parts, self._split(x), self._split(u), strict=True)
        return torch.cat([_flat(p.component_inner(y, v).expand(y.shape), x) for p, y, v in pieces], -1)


@register(geoopt.Scaled)
class ScaledGeometry(DelegatingGeometry):
    r"""Geometry of the base with lengths multiplied by ``s``: metric :math:`s^2\langle u, v\rangle`, same geodesics.

    geoopt writes tangents of a scaled manifold in units of ``s``, and its ``inner`` and ``egrad2rgrad`` ignore ``s``.
    Here a tangent is a velocity as everywhere else, so that retractions are those of the base.
    """

    def __init__(self, manifold: geoopt.Manifold) -> None:
        super().__init__(manifold, geometry_of(manifold.base))

    def _scale(self, x: Tensor) -> Tensor:
        scale: Tensor = self.manifold.scale.to(
            x.dtype.to_real()
        )  # geoopt's scale may have another precision than the points
        return scale

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return super().inner(x, u, v) * self._scale(x) ** 2

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        return super().component_inner(x, u) * self._scale(x) ** 2

    def point_inner(self, x: Tensor, u: Tensor) -> Tensor:
        return super().point_inner(x, u) * self._scale(x) ** 2

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return super().raise_index(x, g) / self._scale(x) ** 2

    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        return super().lower_index(x, u) * self._scale(x) ** 2

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        return super().from_coordinates(x, z) / self._scale(x)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        return super().to_coordinates(x, c) / self._scale(x)


def _reduce_scaled(
    scaled: geoopt.Scaled,
) -> tuple[type[geoopt.Scaled], tuple[geoopt.Manifold], dict[str, Any]]:
    """Make the bound methods, which geoopt's constructor adds to the object, anew in copies and pickles."""
    own = {k: v for k, v in vars(scaled).items() if not (isinstance(v, types.MethodType) and v.__self__ is scaled)}
    return type(scaled), (scaled.base,), own


# Otherwise geoopt 0.5.1 pickles these methods before the base that they ask for: loading recurses without end (ball),
# or finds no method (sphere), and the methods of a shallow copy stay those of the original.
copyreg.pickle(geoopt.Scaled, _reduce_scaled)
