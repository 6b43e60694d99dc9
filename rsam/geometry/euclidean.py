"""Flat space: a plain parameter is a point here."""

from __future__ import annotations

from typing import Any

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry, register

__all__ = ["EuclideanGeometry"]


@register(geoopt.Euclidean)
class EuclideanGeometry(Geometry):
    """Every operation is the identity or an addition, on real and complex tensors."""

    retraction_order = 2
    isometric = True

    def key(self) -> tuple[Any, ...]:
        return (type(self.manifold), self.manifold.ndim)

    def dimension(self, x: Tensor) -> int:
        return x.numel() * (2 if x.is_complex() else 1)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        # geoopt's needs a real product for complex tensors, and with ndim=0 treats each number as a point: so do we
        product = (u.conj() * v).real
        ndim = self.manifold.ndim
        return product.sum(tuple(range(-ndim, 0)), keepdim=True) if ndim else product

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        return (u.conj() * u).real

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return g

    def lower_index(self, x: Tensor, t: Tensor) -> Tensor:
        return t

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

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        scale = 2**0.5 if x.is_complex() else 1.0  # complex randn halves the variance between its two parts
        return scale * torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return torch.zeros_like(v)
