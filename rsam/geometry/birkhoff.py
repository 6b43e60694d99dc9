"""Doubly stochastic matrices."""

from __future__ import annotations

from typing import Any

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry, points_in, register

__all__ = ["BirkhoffGeometry"]


@register(geoopt.BirkhoffPolytope)
class BirkhoffGeometry(Geometry):
    r"""Fisher metric :math:`\frac1n \sum u_{ij} v_{ij} / x_{ij}`, as geoopt scales it (Douik and Hassibi 2019).

    geoopt's ``proju`` multiplies by ``x`` before it projects, so that it moves tangents, and its Riemannian
    gradient lacks the factor ``n`` of the metric. Its ``expmap`` is the retraction; no exponential is known.
    """

    def key(self) -> tuple[Any, ...]:
        return (type(self.manifold),)

    def dimension(self, x: Tensor) -> int:
        return points_in(x, 2) * (x.shape[-1] - 1) ** 2

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v / x).sum((-2, -1), keepdim=True) / x.shape[-1]

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return x.shape[-1] * self.project(x, x * g)

    def lower_index(self, x: Tensor, t: Tensor) -> Tensor:
        return t / x / x.shape[-1]

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        """Orthogonal projection ``u - (a 1^T + 1 b^T) * x`` onto zero row and column sums."""
        n = x.shape[-1]
        eye = torch.eye(n, dtype=x.dtype, device=x.device).expand_as(x)
        system = torch.cat((torch.cat((eye, x), -1), torch.cat((x.mT, eye), -1)), -2)
        null = torch.cat((x.new_ones(n), -x.new_ones(n)))
        # (a, b) is free up to (c, -c); the rank-one term makes the system regular and chooses one. At a permutation
        # matrix there is more freedom, which the shift keeps harmless
        shift = torch.finfo(x.dtype).eps * torch.eye(2 * n, dtype=x.dtype, device=x.device)
        system = system + torch.outer(null, null) / (2 * n) + shift
        sums = torch.cat((u.sum(-1), u.sum(-2)), -1).unsqueeze(-1)
        a, b = torch.linalg.solve(system, sums).split(n, -2)
        return u - (a + b.mT) * x

    def project_point(self, x: Tensor) -> Tensor:
        """Sinkhorn's scaling, to the precision of the dtype (geoopt stops at 1e-5)."""
        tolerance = 10 * torch.finfo(x.dtype).eps
        x = x.abs().clamp_min(1e-12)
        for _ in range(100):
            x = x / x.sum(-2, keepdim=True)
            rows = x.sum(-1, keepdim=True)
            x = x / rows
            if (rows - 1).abs().max() <= tolerance:
                break
        return x

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        exponent = u / x
        # scaling a row changes nothing after Sinkhorn, and keeps the exponential from overflowing
        return self.project_point(x * torch.exp(exponent - exponent.amax(-1, keepdim=True)))

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        raise self.unsupported("exponential")

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return self.project(y, v)

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        return self.project(x, (x.shape[-1] * x).sqrt() * z)
