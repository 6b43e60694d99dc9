"""Define the geometry of doubly stochastic matrices."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry
from rsam.geometry.linalg import points_in
from rsam.geometry.registry import register

__all__ = ["BirkhoffGeometry"]


def _solve(x: Tensor, rows: Tensor, columns: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Return a column ``a`` and a row ``b^T`` such that ``(a + b^T) * x`` has the row and column sums ``sums``."""
    n = x.shape[-1]
    system = torch.cat((torch.cat((rows.diag_embed(), x), -1), torch.cat((x.mT, columns.diag_embed()), -1)), -2)
    null = torch.cat((x.new_ones(n), -x.new_ones(n)))
    # (a, b) is determined up to (c, -c); the rank-one term makes the system regular and selects one. At a permutation
    # matrix there is more freedom, which the shift removes
    shift = torch.finfo(x.dtype).eps * torch.eye(2 * n, dtype=x.dtype, device=x.device)
    solution = torch.linalg.solve(system + torch.outer(null, null) / (2 * n) + shift, sums.unsqueeze(-1))
    a, b = solution.split(n, -2)
    return a, b.mT


def _sinkhorn(x: Tensor) -> Tensor:
    x = x / x.sum(-2, keepdim=True)
    return x / x.sum(-1, keepdim=True)


def _newton(x: Tensor) -> Tensor:
    rows, columns = x.sum(-1), x.sum(-2)
    a, b = _solve(x, rows, columns, torch.cat((1 - rows, 1 - columns), -1))
    return x * torch.exp(a.clamp(-1, 1) + b.clamp(-1, 1))


def _balanced(x: Tensor) -> Tensor:
    """Scale rows and columns of positive matrices to sums of one; derivatives are those of the limit."""
    with torch.no_grad():
        y = x
        for sweep in range(50):
            y = _sinkhorn(y) if sweep < 20 else _newton(y)
            if (y.sum(-2) - 1).abs().max() <= (10 + y.shape[-1]) * torch.finfo(x.dtype).eps:
                break
        y = _sinkhorn(y)
    if not x.requires_grad:
        return y
    # two Newton steps from the limit have its first two derivatives; sweeps do not
    return _newton(_newton(x * (y / x).detach()))


@register(geoopt.BirkhoffPolytope)
class BirkhoffGeometry(Geometry):
    r"""Geometry of the Fisher metric :math:`\frac1n \sum u_{ij} v_{ij} / x_{ij}`, as geoopt scales it.

    The formulas are those of Douik and Hassibi 2019. geoopt's ``proju`` multiplies by ``x`` before it projects, so that
    it changes tangents. Its Riemannian gradient lacks the factor ``n`` of the metric, and its ``expmap`` is the
    retraction; no exponential is known.
    """

    def dimension(self, x: Tensor) -> int:
        return points_in(x, 2) * (x.shape[-1] - 1) ** 2

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v / x).sum((-2, -1), keepdim=True) / x.shape[-1]

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return x.shape[-1] * self.project(x, x * g)

    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        return u / x / x.shape[-1]

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        """Project orthogonally onto zero row and column sums: ``u - (a 1^T + 1 b^T) * x``."""
        ones = torch.ones_like(x[..., 0])
        a, b = _solve(x, ones, ones, torch.cat((u.sum(-1), u.sum(-2)), -1))
        return u - (a + b) * x

    def project_point(self, x: Tensor) -> Tensor:
        """Scale rows and columns to sums of one, to the precision of the dtype (geoopt stops at 1e-5).

        Sinkhorn's sweeps, which slow down near the boundary, are followed by Newton's method on the factors'
        logarithms.
        """
        return _balanced(x.abs().clamp_min(1e-12)) if x.numel() else x

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        if not x.numel():
            return x + u
        exponent = u / x
        # scaling a row does not change the result, and keeps the exponential from overflowing. A bound far above the
        # smallest number would hold entries of steep rows, and then the scale would matter
        scaled = x * torch.exp(exponent - exponent.amax(-1, keepdim=True).detach())
        return _balanced(scaled.clamp_min(torch.finfo(x.dtype).tiny))

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        raise self.unsupported("exponential")

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return self.project(y, v)
