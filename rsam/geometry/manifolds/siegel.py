"""Define the geometry of Siegel spaces: complex symmetric matrices, in a half space or in a bounded domain."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry
from rsam.geometry.linalg import points_in, powers, solve, sym, symmetric_from_vector, symmetric_to_vector
from rsam.geometry.registry import register

__all__ = ["BoundedDomainGeometry", "UpperHalfGeometry"]


class _SiegelGeometry(Geometry):
    r"""Geometry of the metric :math:`s\,\mathrm{Re\,tr}(h^{-1} u\, \bar h^{-1} \bar v)` with Hermitian ``h``.

    ``h`` depends on the point, and ``s`` is a scale. Tangents are transported as ``m v m^T`` with
    ``m = (h(y) h(x)^{-1})^{1/2}``. This is isometric, and equivariant under the same isometries as
    the retraction. geoopt has no exponential here, uses ``egrad2rgrad`` as the projection, and transports tangents
    without changing them.
    """

    isometric = True
    numbers = frozenset({"complex"})
    scale = 1.0

    def _hermitian(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def dimension(self, x: Tensor) -> int:
        n = x.shape[-1]
        return points_in(x, 2) * n * (n + 1)

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        h = self._hermitian(x)
        return self.scale * (solve(h, u) * solve(h, v).conj().mT).real.sum((-2, -1), keepdim=True)

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        h = self._hermitian(x)
        return sym(h @ sym(g) @ h.mT) / self.scale

    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        h = self._hermitian(x)
        return self.scale * sym(solve(h, solve(h, u).mT).mT)

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        return sym(u)

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        y = sym(x + u)
        # geoopt clamps into the domain by eigenvectors, which have no derivative where eigenvalues are equal
        clamped = self.manifold.projx(y.detach())
        return torch.where(clamped == y, y, clamped)

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        root, inverse_root = powers(self._hermitian(x), 0.5, -0.5)
        (middle,) = powers(inverse_root @ self._hermitian(y) @ inverse_root, 0.5)
        m = root @ middle @ inverse_root
        return sym(m @ v @ m.mT)

    def retract_second_order(self, x: Tensor, u: Tensor) -> Tensor:
        return self.retract(x, u + self.acceleration(x, u) / 2)

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        n = x.shape[-1]
        real, imaginary = (symmetric_from_vector(half, n) for half in z.chunk(2, -1))
        root = torch.linalg.cholesky(self._hermitian(x))
        tangent: Tensor = sym(root @ torch.complex(real, imaginary) @ root.mT) / self.scale**0.5
        return tangent

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        root = torch.linalg.cholesky(self._hermitian(x))
        inner = root.mH @ sym(c) @ root.conj() / self.scale**0.5
        return torch.cat((symmetric_to_vector(inner.real), symmetric_to_vector(inner.imag)), -1)


@register(geoopt.UpperHalf)
class UpperHalfGeometry(_SiegelGeometry):
    """Geometry of ``z = x + iy`` with positive definite ``y``, which is the Hermitian form (Siegel 1943)."""

    def _hermitian(self, z: Tensor) -> Tensor:
        return z.imag.to(z.dtype)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return -1j * sym(v @ solve(self._hermitian(x), v))


@register(geoopt.BoundedDomain)
class BoundedDomainGeometry(_SiegelGeometry):
    r"""Geometry of ``z`` with positive definite ``I - z z*``, the Hermitian form; isometric to the upper half space.

    geoopt 0.5.1 swaps ``z`` and its conjugate in ``inner``, which the isometries ``u z u^T`` then do not preserve, and
    its Riemannian gradient fits neither metric. The scale makes geoopt's ``dist`` the geodesic distance.
    """

    scale = 4.0

    def _hermitian(self, z: Tensor) -> Tensor:
        return torch.eye(z.shape[-1], dtype=z.dtype, device=z.device) - z @ z.conj()

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return -2 * sym(v @ x.conj() @ solve(self._hermitian(x), v))
