"""Define geometries that forward their operations to others."""

from __future__ import annotations

from typing import Any

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import OPERATIONS, Geometry

__all__ = ["DelegatingGeometry", "ForwardingGeometry"]


class ForwardingGeometry(Geometry):
    """Geometry that forwards each operation with a result of a point's shape to another geometry, or to several."""

    def _forward(self, operation: str, x: Tensor, *vectors: Any, **options: Any) -> Any:
        raise NotImplementedError


def _forwarding(operation: str) -> Any:
    def forward(self: ForwardingGeometry, x: Tensor, *vectors: Any, **options: Any) -> Any:
        return self._forward(operation, x, *vectors, **options)

    return forward


# not forwarded, since their results have other shapes or are made of forwarded ones; subclasses define them
_OTHERS = (
    "inner", "component_inner", "point_inner", "squared_norm", "dimension", "curve",
    "random_tangent", "coordinates_shape", "from_coordinates", "to_coordinates",
)  # fmt: skip
for _operation in OPERATIONS.keys() - set(_OTHERS):
    setattr(ForwardingGeometry, _operation, _forwarding(_operation))


class DelegatingGeometry(ForwardingGeometry):
    """Another geometry behind a linear change of layout, which the subclass defines (by default none).

    Attributes
    ----------
    base : Geometry
        The other geometry.
    only_layout : bool
        Whether only the layout differs, so that callers may convert once and use the base directly.
    """

    only_layout: bool = False

    def __init__(self, manifold: geoopt.Manifold, base: Geometry) -> None:
        super().__init__(manifold)
        self.base = base
        self.retraction_order, self.isometric = base.retraction_order, base.isometric
        self.momentum_transport = base.momentum_transport
        self.numbers = base.numbers
        self.may_fail = base.may_fail

    def enter(self, x: Tensor) -> Tensor:
        """Return points or vectors in the layout of the base."""
        return x

    def leave(self, y: Tensor, shape: torch.Size) -> Tensor:
        """Undo :meth:`enter`, for results of the given shape."""
        return y

    def _forward(self, operation: str, x: Tensor, *vectors: Any, **options: Any) -> Any:
        entered = [self.enter(v) if isinstance(v, Tensor) else v for v in (x, *vectors)]
        result = getattr(self.base, operation)(*entered, **options)
        if isinstance(result, tuple):
            return tuple(self.leave(part, x.shape) for part in result)
        return self.leave(result, x.shape)

    def dimension(self, x: Tensor) -> int:
        return self.base.dimension(self.enter(x))

    def coordinates_shape(self, x: Tensor) -> torch.Size:
        return self.base.coordinates_shape(self.enter(x))

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        return self.leave(self.base.from_coordinates(self.enter(x), z), x.shape)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        return self.base.to_coordinates(self.enter(x), self.enter(c))

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.base.inner(*map(self.enter, (x, u, v)))

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        return self.base.component_inner(self.enter(x), self.enter(u))

    def point_inner(self, x: Tensor, u: Tensor) -> Tensor:
        return self.base.point_inner(self.enter(x), self.enter(u))
