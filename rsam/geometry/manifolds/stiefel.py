"""Define the geometry of Stiefel matrices ``x``, ``(n, p)`` with ``x^T x = I``, in both usual metrics."""

from __future__ import annotations

import math

import geoopt
import torch
from torch import Tensor

from rsam.geometry.base import Geometry
from rsam.geometry.geoopt_interface import FromGeometry
from rsam.geometry.linalg import complement, complement_transpose, points_in, skew_from_vector, skew_to_vector, solve
from rsam.geometry.orthonormal import (
    bounded,
    cholesky_root,
    flat,
    orthonormalised,
    polish,
    project,
    signed_qr,
    spd_inverse,
)
from rsam.geometry.registry import register

__all__ = [
    "CanonicalStiefel",
    "CanonicalStiefelGeometry",
    "EuclideanStiefelExactGeometry",
    "EuclideanStiefelGeometry",
]


def _eye(x: Tensor, n: int) -> Tensor:
    return torch.eye(n, dtype=x.dtype, device=x.device)


def _polish_or_factor(y: Tensor) -> Tensor:
    """Orthonormalise the result of a matrix exponential, which huge steps leave too far off for Newton-Schulz."""
    error = (y.mT @ y - _eye(y, y.shape[-1])).abs().amax() if y.numel() else y.sum()
    return polish(flat(y)).view(y.shape) if bool(error < torch.finfo(y.dtype).eps ** 0.5) else signed_qr(y)


def _shortened(u: Tensor) -> Tensor:
    """Shorten a step to a length of at most 64 in float32, or 16384 in float64.

    Rounding errors of the Cayley transform grow with the square of the length; up to twice the fourth root of 1 / eps
    one step of Newton-Schulz removes them. A step of that length turns a plane by nearly pi, and no longer step would
    turn it further. If the square of the length overflows, the step becomes zero.
    """
    return bounded(u, 2.0 ** math.floor(1 - math.log2(torch.finfo(u.dtype).eps) / 4))


# A tangent u = x a + n, a skew and x^T n = 0, is W x for the skew W = x a x^T + n x^T - x n^T. The Cayley transform of
# W needs a system of p x p only: (I - W/2) z = x is solved by z = m c / 2 with m = 2 x + n and
# c = (I - a/2 + n^T n / 4)^-1, so that y = 2 z - x = m c - x. Any other v is taken to
# v + (y - x) alpha - (y + x) beta / 2 with alpha = x^T v and beta = n^T v, without another system.


def _skew_part(x: Tensor, u: Tensor) -> Tensor:
    a = torch.bmm(x.mT, u)
    return (a - a.mT) / 2


def _cayley(x: Tensor, u: Tensor, a: Tensor) -> Tensor:
    """Return the end of the Cayley curve along ``u = x a + n``, polished; for flat tensors."""
    if x.shape[-2] == x.shape[-1]:
        # n = 0, and (I - a/2)^-1 = (I + a/2) (I + a^T a / 4)^-1; Cholesky is faster than LU for many matrices
        gram = torch.baddbmm(_eye(a, a.shape[-1]).expand_as(a), a.mT, a, alpha=0.25)
        inverse = spd_inverse(cholesky_root(gram))
        return polish(torch.baddbmm(x, x, torch.baddbmm(inverse, a, inverse, alpha=0.5), beta=-1, alpha=2))
    m = torch.baddbmm(torch.add(u, x, alpha=2), x, a, alpha=-1)
    gram = torch.baddbmm(a, m.mT, m, beta=-0.5, alpha=0.25)  # m^T m = 4 I + n^T n
    factors, pivots, _ = torch.linalg.lu_factor_ex(gram)
    # from the right, for which MKL needs half the time
    c = torch.linalg.lu_solve(factors, pivots, _eye(a, a.shape[-1]).expand_as(a), left=False)
    return polish(torch.baddbmm(x, m, c, beta=-1))


def _turned(x: Tensor, u: Tensor, a: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """Apply to ``v`` the orthogonal matrix that moves ``x`` along ``u`` to ``y``; for flat tensors."""
    alpha = torch.bmm(x.mT, v)
    if x.shape[-2] == x.shape[-1]:
        return torch.bmm(y, alpha)
    half = torch.baddbmm(torch.bmm(u.mT, v), a, alpha) / 2  # n^T v = u^T v + a alpha
    return torch.baddbmm(torch.baddbmm(v, y, alpha - half), x, alpha + half, alpha=-1)


def _rotate(a: Tensor, b: Tensor, v: Tensor, exact: bool = False) -> Tensor:
    """Apply to ``v`` the Cayley transform (the exponential if ``exact``) of the skew ``a b^T - b a^T``.

    To invert the step, swap ``a`` and ``b``.
    """
    n, p = a.shape[-2:]
    if 2 * p >= n:
        w = a @ b.mT - b @ a.mT
        return torch.matrix_exp(w) @ v if exact else solve(_eye(w, n) - w / 2, v + w @ v / 2)
    # left right^T has rank 2p: compute the same functions of the small right^T left (Sherman-Morrison-Woodbury)
    left, right = torch.cat((a, b), -1), torch.cat((b, -a), -1)
    small, rhs = right.mT @ left, right.mT @ v
    if not exact:
        return v + left @ solve(_eye(small, 2 * p) - small / 2, rhs)
    # expm(W) v = v + left phi(small) rhs, with phi(m) = (e^m - 1)/m read off an augmented exponential
    zeros = small.new_zeros(*small.shape[:-2], rhs.shape[-1], 2 * p + rhs.shape[-1])
    augmented = torch.cat((torch.cat((small, rhs), -1), zeros), -2)
    return v + left @ torch.matrix_exp(augmented)[..., : 2 * p, 2 * p :]


class _StiefelGeometry(Geometry):
    """Base of the geometries in both metrics, with the operations that do not depend on the metric."""

    isometric = True
    momentum_transport = "projection"
    may_fail = False
    # Length of x a, where a is skew with a single 1 below the diagonal; it differs between the metrics.
    _turn: float

    def dimension(self, x: Tensor) -> int:
        n, p = x.shape[-2:]
        return points_in(x, 2) * (n * p - p * (p + 1) // 2)

    def contains(self, x: Tensor, tolerance: float) -> bool:
        return bool((x.mT @ x - _eye(x, x.shape[-1])).abs().max() <= tolerance)

    def project(self, x: Tensor, u: Tensor) -> Tensor:
        # geoopt's canonical proju, u - x u^T x, is no projection
        return project(flat(x), flat(u)).view(u.shape)

    def from_coordinates(self, x: Tensor, z: Tensor) -> Tensor:
        # x a + x_perp k with a skew
        n, p = x.shape[-2:]
        turns = p * (p - 1) // 2
        v = x @ skew_from_vector(z[..., :turns] / self._turn, p)
        return v if n == p else v + complement(x, z[..., turns:].reshape(*z.shape[:-1], n - p, p))

    def to_coordinates(self, x: Tensor, c: Tensor) -> Tensor:
        n, p = x.shape[-2:]
        turns = skew_to_vector(x.mT @ c) / self._turn
        return turns if n == p else torch.cat((turns, complement_transpose(x, c).flatten(-2)), -1)

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Rotate ``v`` by a rotation near the identity that takes ``x`` to ``y``.

        Rotations are isometries of both metrics; geoopt's projection is not. The inverse of this rotation is the one
        from ``y`` to ``x``. It is the Cayley transform of the skew ``w`` of least rank with ``w (x + y) / 2 = y - x``.
        """
        s, d = x + y, 2 * (y - x)
        # s^T s is singular only if y is at an angle of 90 degrees or more from x; the shift keeps the rotation finite
        gram = s.mT @ s + torch.finfo(x.dtype).eps * _eye(x, x.shape[-1])
        a = solve(gram, s.mT).mT
        return _rotate(d - a @ (s.mT @ d) / 2, a, v)


@register(geoopt.EuclideanStiefel)
class EuclideanStiefelGeometry(_StiefelGeometry):
    """Geometry with the metric of the embedding and the retraction by QR (Absil et al. 2008, Ex. 4.1.3)."""

    momentum_transport = "projection"
    _turn = 2**0.5

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum((-2, -1), keepdim=True)

    def squared_norm(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.vdot(u.reshape(-1), u.reshape(-1))

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        return self.project(x, g)

    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return orthonormalised(flat(x), flat(u)).reshape(x.shape)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        # Edelman, Arias and Smith 1998, eq. 2.42
        p = x.shape[-1]
        a, s = x.mT @ u, u.mT @ u
        block = torch.cat((torch.cat((a, -s), -1), torch.cat((_eye(x, p).expand_as(a), a), -1)), -2)
        frame = torch.matrix_exp(block)[..., :p] @ torch.matrix_exp(-a)
        return _polish_or_factor(torch.cat((x, u), -1) @ frame)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        return -x @ (v.mT @ v)


@register(geoopt.EuclideanStiefelExact)
class EuclideanStiefelExactGeometry(EuclideanStiefelGeometry):
    """Geometry of the same manifold stepped along geodesics."""

    retraction_order = 2
    momentum_transport = "projection"
    may_fail = True  # the matrix exponential overflows, in single precision for steps of a length of about 1e6

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return self.exponential(x, u)


@register(geoopt.CanonicalStiefel)
class CanonicalStiefelGeometry(_StiefelGeometry):
    r"""Geometry of the metric :math:`\langle u, v\rangle = \mathrm{tr}\,u^T (I - xx^T/2) v` (Edelman et al. 1998).

    A tangent ``u`` is ``W x`` for the skew ``W = P u x^T - x u^T P`` with ``P = I - x x^T / 2``. The geodesic is
    ``expm(t W) x``; the retraction, of second order, is the Cayley transform of ``W`` applied to ``x`` (Wen and Yin
    2013). Both move ``x`` by an orthogonal matrix, and transport tangents by the same matrix, which is isometric and
    inverted by the transpose. Momentum is projected, which takes less time and keeps it tangent. Cayley steps are
    shortened to a length of 64 in float32, 16384 in float64: longer ones would lose orthogonality to rounding.

    geoopt 0.5.1 builds ``W`` without ``P``, so that its step has derivative ``u + x x^T u`` at zero.
    """

    retraction_order = 2
    _turn = 1.0

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        whole = (u * v).sum((-2, -1), keepdim=True)
        if x.shape[-2] == x.shape[-1]:  # x x^T = I
            return whole / 2
        a = x.mT @ u
        return whole - (a * (a if v is u else x.mT @ v)).sum((-2, -1), keepdim=True) / 2

    def raise_index(self, x: Tensor, g: Tensor) -> Tensor:
        base, h = flat(x), flat(g)
        return torch.baddbmm(h, base, torch.bmm(h.mT, base), alpha=-1).view(g.shape)

    def lower_index(self, x: Tensor, u: Tensor) -> Tensor:
        return u - x @ (x.mT @ u) / 2

    def _generator(self, x: Tensor, u: Tensor) -> Tensor:
        """Return ``P u``, the first factor of ``W = P u x^T - x u^T P``."""
        return u - x @ (x.mT @ u) / 2

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        base, step = flat(x), _shortened(flat(u))
        return _cayley(base, step, _skew_part(base, step)).view(x.shape)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        return _polish_or_factor(_rotate(self._generator(x, u), x, x, exact=True))

    def retract_transport(
        self, x: Tensor, u: Tensor, v: Tensor, t: float | Tensor = 1.0, isometric: bool = False
    ) -> tuple[Tensor, Tensor]:
        base, step, w = flat(x), _shortened(flat(u * t)), flat(v)
        a = _skew_part(base, step)
        y = _cayley(base, step, a)
        return y.view(x.shape), (_turned(base, step, a, y, w) if isometric else project(y, w)).view(v.shape)

    def transport(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor, exact: bool = False) -> Tensor:
        if exact:
            return _rotate(self._generator(x, u), x, v, exact=True)
        base, step = flat(x), _shortened(flat(u))
        return _turned(base, step, _skew_part(base, step), flat(y), flat(v)).view(v.shape)

    def transport_back(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor, exact: bool = False) -> Tensor:
        if exact:
            return _rotate(x, self._generator(x, u), v, exact=True)
        # the rotation commutes with its generator: the step from y along -u, carried there, leads to x
        short = _shortened(flat(u)).view(u.shape)
        return self.transport(y, -self.transport(x, short, y, short), x, v)

    def acceleration(self, x: Tensor, v: Tensor) -> Tensor:
        a = x.mT @ v
        return -(v @ (v.mT @ x) + x @ (a @ a + v.mT @ v))


class CanonicalStiefel(FromGeometry, geoopt.CanonicalStiefel):
    r"""Drop-in replacement of :class:`geoopt.CanonicalStiefel` with correct steps.

    Points are matrices :math:`X \in \mathbb{R}^{n\times p}`, :math:`X^\top X = I`, under the canonical metric. The
    retraction is the Cayley transform through :math:`W = PuX^\top - Xu^\top P`, :math:`P = I - XX^\top/2` (Wen and
    Yin 2013, eq. 11 and Lemma 4), which solves a ``p`` by ``p`` system; :meth:`expmap` follows the geodesic. Along
    either curve tangents are transported by the orthogonal matrix that moves the point, an isometry; ``transp``, which
    is not given a curve, transports by a rotation near the identity.

    geoopt 0.5.1's own retraction has derivative :math:`u + XX^\top u` at zero (a square matrix moves twice as far as it
    should). Its ``proju`` is not idempotent, so that momentum grows without bound under ``stabilize``.

    Examples
    --------
    >>> import torch, rsam
    >>> manifold = rsam.geometry.CanonicalStiefel()
    >>> x, u = torch.eye(3, 1), torch.tensor([[0.0], [0.1], [0.0]])
    >>> manifold.retr(x, u).T
    tensor([[0.9950, 0.0998, 0.0000]])
    """


# the generic geometry would call this manifold's methods, which call the geometry
register(CanonicalStiefel)(CanonicalStiefelGeometry)
