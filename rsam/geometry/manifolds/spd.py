"""Define the geometry of symmetric positive definite matrices."""

from __future__ import annotations

import geoopt
import torch
from geoopt.manifolds.symmetric_positive_definite import SPDMetric
from torch import Tensor

from rsam.geometry.base import Geometry
from rsam.geometry.linalg import points_in, powers, solve, sym, symmetric_from_vector, symmetric_to_vector
from rsam.geometry.registry import register

__all__ = ["SPDGeometry"]


@register(geoopt.SymmetricPositiveDefinite)
class SPDGeometry(Geometry):
    r"""Geometry of the affine-invariant metric :math:`\mathrm{tr}(x^{-1} u x^{-1} v)` (Pennec et al. 2006).

    The formulas are in Bhatia 2007. The retraction ``x + u + u x^-1 u / 2`` is of second order; tangents are
    transported in parallel along the geodesic.
    """

    retraction_order = 2
    isometric = True
    momentum_transport = "congruence"

    def __init__(self, manifold: geoopt.Manifold) -> None:
        super().__init__(manifold)
        if manifold.default_metric is not SPDMetric.AIM:
            # geoopt would silently use the affine-invariant inner and expmap
            raise self.unsupported(f"inner product for default_metric={manifold.default_metric.value!r} (only 'AIM')")

    def dimension(self, x: Tensor) -> int:
        n = x.shape[-1]
        return points_in(x, 2) * (n * (n + 1) // 2)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (solve(x, u) * solve(x, v).mT).sum((-2, -1), keepdim=True)

    def component_inner(self, x: Tensor, u: Tensor) -> Tensor:
        a = solve(x, u)
        return (a * a.mT).sum((-2, -1), keepdim=True)

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return sym(x @ sym(g) @ x)

    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        return sym(solve(x, solve(x, u).mT))

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        return sym(u)

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return sym(x + u + u @ solve(x, u) / 2)

    def retract_transport(
        self, x: Tensor, u: Tensor, v: Tensor, t: float | Tensor = 1.0, isometric: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Carry ``v`` by the congruence ``e v e^T`` with ``e = I + u x^-1 / 2``, parallel to first order.

        This commutes with all isometries, and lengthens no tangent: ``e e^T <= y`` at ``x = I``.
        """
        step = u * t
        half = solve(x, step) / 2
        y = sym(x + step + step @ half)
        if isometric:
            return y, self.carry(x, y, v)
        inner = v + v @ half
        return y, sym(inner + half.mT @ inner)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        root, inverse_root = powers(x, 0.5, -0.5)
        return sym(root @ torch.matrix_exp(sym(inverse_root @ u @ inverse_root)) @ root)

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        # E v E^T with E = (y x^-1)^(1/2), written with symmetric roots
        root, inverse_root = powers(x, 0.5, -0.5)
        (middle,) = powers(sym(inverse_root @ y @ inverse_root), 0.5)
        e = root @ middle @ inverse_root
        return sym(e @ v @ e.mT)

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        # by Cholesky, since the symmetric root has no derivative where eigenvalues are equal, as at the identity
        root = torch.linalg.cholesky(x)
        return sym(root @ symmetric_from_vector(z, x.shape[-1]) @ root.mT)

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        root = torch.linalg.cholesky(x)
        return symmetric_to_vector(root.mT @ sym(c) @ root)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return sym(v @ solve(x, v))
