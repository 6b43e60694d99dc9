"""Products and rescalings of other manifolds."""

from __future__ import annotations

from typing import Any

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry, geometry_of, register

__all__ = ["ProductGeometry", "ScaledGeometry"]


class _ForwardingGeometry(Geometry):
    """Every operation that returns a tensor of the shape of a point goes to another geometry, or to several."""

    def _forward(self, operation: str, x: Tensor, *vectors: Tensor, **options: Any) -> Tensor:
        raise NotImplementedError

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return self._forward("raise_index", x, g)

    def lower_index(self, x: Tensor, t: Tensor) -> Tensor:
        return self._forward("lower_index", x, t)

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        return self._forward("project", x, u)

    def restore_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        return self._forward("restore_tangent", x, u)

    def project_point(self, x: Tensor) -> Tensor:
        return self._forward("project_point", x)

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self._forward("retract", x, u)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        return self._forward("exponential", x, u)

    def logarithm(self, x: Tensor, y: Tensor) -> Tensor:
        return self._forward("logarithm", x, y)

    def retract_second_order(self, x: Tensor, u: Tensor) -> Tensor:
        return self._forward("retract_second_order", x, u)

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return self._forward("carry", x, y, v)

    def transport(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor, exact: bool = False) -> Tensor:
        return self._forward("transport", x, u, y, v, exact=exact)

    def transport_back(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor, exact: bool = False) -> Tensor:
        return self._forward("transport_back", x, u, y, v, exact=exact)

    def pullback(self, x: Tensor, u: Tensor, c: Tensor, exact: bool = False) -> Tensor:
        return self._forward("pullback", x, u, c, exact=exact)

    def connection(self, x: Tensor, c: Tensor, v: Tensor) -> Tensor:
        return self._forward("connection", x, c, v)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return self._forward("acceleration", x, v)


@register(geoopt.ProductManifold)
class ProductGeometry(_ForwardingGeometry):
    """Everything part by part, on the slices of the last dimension that geoopt packs points into."""

    def __init__(self, manifold: geoopt.Manifold) -> None:
        super().__init__(manifold)
        self._parts = [geometry_of(part) for part in manifold.manifolds]
        self.retraction_order = min(part.retraction_order for part in self._parts)
        self.isometric = all(part.isometric for part in self._parts)

    def _split(self, x: Tensor) -> list[Tensor]:
        return [self.manifold.take_submanifold_value(x, i) for i in range(len(self._parts))]

    def _forward(self, operation: str, x: Tensor, *vectors: Tensor, **options: Any) -> Tensor:
        columns = zip(*(self._split(t) for t in (x, *vectors)), strict=True)
        results = [
            getattr(part, operation)(*column, **options).reshape(*x.shape[:-1], -1)
            for part, column in zip(self._parts, columns, strict=True)
        ]
        return torch.cat(results, -1)

    def dimension(self, x: Tensor) -> int:
        return sum(part.dimension(piece) for part, piece in zip(self._parts, self._split(x), strict=True))

    def coordinates_shape(self, x: Tensor) -> torch.Size:
        return torch.Size((*x.shape[:-1], sum(self._dimensions(x))))

    def _dimensions(self, x: Tensor) -> list[int]:
        """Dimension of each part of one point."""
        one = x.detach().reshape(-1, x.shape[-1])[0]
        return [part.dimension(piece) for part, piece in zip(self._parts, self._split(one), strict=True)]

    def _split_coordinates(self, x: Tensor, z: Tensor) -> list[Tensor]:
        pieces = z.split(self._dimensions(x), -1)
        # a part may be a batch of its own, or flat of any shape
        shapes = [part.coordinates_shape(piece) for part, piece in zip(self._parts, self._split(x), strict=True)]
        return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        columns = zip(self._parts, self._split(x), self._split_coordinates(x, z), strict=True)
        return torch.cat([part.from_coordinates(y, w).reshape(*x.shape[:-1], -1) for part, y, w in columns], -1)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        columns = zip(self._parts, self._split(x), self._split(c), strict=True)
        return torch.cat([part.to_coordinates(y, d).reshape(*x.shape[:-1], -1) for part, y, d in columns], -1)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        columns = zip(self._parts, self._split(x), self._split(u), self._split(v), strict=True)
        terms = [part.inner(*column).reshape(*x.shape[:-1], -1).sum(-1, keepdim=True) for part, *column in columns]
        return torch.cat(terms, -1).sum(-1, keepdim=True)

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        pieces = zip(self._parts, self._split(x), self._split(u), strict=True)
        return torch.cat([p.component_inner(y, v).expand(y.shape).reshape(*x.shape[:-1], -1) for p, y, v in pieces], -1)


class DelegatingGeometry(_ForwardingGeometry):
    """Another geometry seen through a linear change of layout, which the subclass gives (default: none)."""

    def __init__(self, manifold: geoopt.Manifold, base: Geometry) -> None:
        super().__init__(manifold)
        self._base = base
        self.retraction_order = base.retraction_order
        self.isometric = base.isometric

    def key(self) -> tuple[Any, ...]:
        return (type(self.manifold), *self._base.key())

    def _enter(self, x: Tensor) -> Tensor:
        return x

    def _leave(self, y: Tensor, like: Tensor) -> Tensor:
        return y

    def _forward(self, operation: str, x: Tensor, *vectors: Tensor, **options: Any) -> Tensor:
        result = getattr(self._base, operation)(*map(self._enter, (x, *vectors)), **options)
        return self._leave(result, x)

    def dimension(self, x: Tensor) -> int:
        return self._base.dimension(self._enter(x))

    def coordinates_shape(self, x: Tensor) -> torch.Size:
        return self._base.coordinates_shape(self._enter(x))

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        return self._leave(self._base.from_coordinates(self._enter(x), z), x)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        return self._base.to_coordinates(self._enter(x), self._enter(c))

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self._base.inner(*map(self._enter, (x, u, v)))

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        return self._base.component_inner(self._enter(x), self._enter(u))


@register(geoopt.Scaled)
class ScaledGeometry(DelegatingGeometry):
    r"""The base with every length multiplied by ``s``: metric :math:`s^2\langle u, v\rangle`, the same geodesics.

    geoopt writes tangents of a scaled manifold in units of ``s``, and its ``inner`` and ``egrad2rgrad`` forget
    ``s``; here a tangent is a velocity as everywhere else, so that retractions are those of the base.
    """

    def __init__(self, manifold: geoopt.Manifold) -> None:
        super().__init__(manifold, geometry_of(manifold.base))

    def key(self) -> tuple[Any, ...]:
        return (type(self.manifold), id(self.manifold))

    @property
    def _scale2(self) -> Tensor:
        return self.manifold.scale**2

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return super().inner(x, u, v) * self._scale2

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        return super().component_inner(x, u) * self._scale2

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return super().raise_index(x, g) / self._scale2

    def lower_index(self, x: Tensor, t: Tensor) -> Tensor:
        return super().lower_index(x, t) * self._scale2

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        return super().from_coordinates(x, z) / self.manifold.scale

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        return super().to_coordinates(x, c) / self.manifold.scale
