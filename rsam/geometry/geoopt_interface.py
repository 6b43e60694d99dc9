"""Give the manifolds that geoopt lacks its interface, on top of a geometry."""

from __future__ import annotations

import geoopt
from torch import Tensor

from rsam.geometry.registry import geometry_of

__all__ = ["FromGeometry"]


class FromGeometry(geoopt.Manifold):
    """Manifold with geoopt's interface that calls the registered :class:`~rsam.geometry.Geometry` of its class."""

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        value = geometry_of(self).inner(x, u, u if v is None else v)
        return value if keepdim else value.flatten(-self.ndim).squeeze(-1)

    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        geometry = geometry_of(self)
        if v is None:
            return geometry.component_inner(x, u)
        # polarisation, since the geometry has squares only
        return (geometry.component_inner(x, u + v) - geometry.component_inner(x, u - v)) / 4

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return geometry_of(self).project(x, u)

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return geometry_of(self).raise_index(x, u)

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        return geometry_of(self).retract(x, u)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return geometry_of(self).exponential(x, u)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return geometry_of(self).carry(x, y, v)

    def transp_follow_retr(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.retr_transp(x, u, v)[1]

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return self.expmap_transp(x, u, v)[1]

    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        geometry = geometry_of(self)
        y = geometry.retract(x, u)
        return y, geometry.transport(x, u, y, v)

    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        geometry = geometry_of(self)
        y = geometry.exponential(x, u)
        return y, geometry.transport(x, u, y, v, exact=True)
