"""Geometries that answer by asking others."""

from __future__ import annotations

from typing import Any

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry

__all__ = ["DelegatingGeometry", "ForwardingGeometry"]


class ForwardingGeometry(Geometry):
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


class DelegatingGeometry(ForwardingGeometry):
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
