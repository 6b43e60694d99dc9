"""Define the geometry of flat space, in which plain parameters are points."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry
from rsam.geometry.linalg import point_sums
from rsam.geometry.registry import register

__all__ = ["EuclideanGeometry"]


@register(geoopt.Euclidean)
class EuclideanGeometry(Geometry):
    """Geometry whose operations are identities or additions, on real and complex tensors."""

    retraction_order = 2
    isometric = True
    momentum_transport = "itself"
    numbers = frozenset({"real", "complex"})
    may_fail = False

    def dimension(self, x: Tensor) -> int:
        return x.numel() * (2 if x.is_complex() else 1)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        # real for complex tensors, unlike geoopt's; with ndim=0 each number is a point, as in geoopt
        return point_sums((u.conj() * v).real, self.manifold.ndim)

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        return (u.conj() * u).real

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return g

    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return v

    def pullback(self, x: Tensor, u: Tensor, c: Tensor, exact: bool = False) -> Tensor:
        return c

    def coordinates_shape(self, x: Tensor) -> torch.Size:
        return torch.Size((*x.shape, 2)) if x.is_complex() else x.shape

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.view_as_complex(z) if x.is_complex() else z

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        return torch.view_as_real(c) if x.is_complex() else c

    def connection(self, x: Tensor, c: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(v)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(v)
