"""Multiply and factorise matrices with orthonormal columns fast.

All functions take and return *flat* tensors, batches ``(k, n, p)``: bmm and baddbmm skip the checks and copies of
matmul, and fuse an addition. The sizes at which the algorithm changes were measured on a CPU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "bounded",
    "cholesky_root",
    "flat",
    "orthonormalised",
    "polish",
    "project",
    "signed_qr",
    "spd_inverse",
    "times_inverse",
]

# Number of columns above which arithmetic dominates the cost of an operation.
_LARGE = 192
# Number of columns above which one more product costs less than a longer triangular solve.
_WIDE = 32


def flat(x: Tensor) -> Tensor:
    """View matrices ``(*batch, n, p)`` as one batch."""
    return x if x.dim() == 3 else x[None] if x.dim() == 2 else x.flatten(0, -3)


def bounded(u: Tensor, longest: float) -> Tensor:
    """Shorten matrices longer than ``longest``; if that is a power of two, shorter ones stay bitwise as they are."""
    return u * (longest / (u * u).sum((-2, -1), keepdim=True).clamp(min=longest**2).sqrt())


def project(x: Tensor, v: Tensor) -> Tensor:
    """Project onto the tangent space: ``v - x sym(x^T v)``."""
    m = torch.bmm(x.mT, v)
    # torch copies a transpose by blocks only for single large matrices
    transposed = m[0].mT.contiguous()[None] if len(m) == 1 and m.shape[-1] >= _LARGE else m.mT
    return torch.baddbmm(v, x, m + transposed, alpha=-0.5)


def polish(y: Tensor) -> Tensor:
    """Take a Newton-Schulz step towards the polar factor, which squares the error of orthonormality."""
    return torch.baddbmm(y, y, torch.bmm(y.mT, y), beta=1.5, alpha=-0.5)


def signed_qr(y: Tensor) -> Tensor:
    """Return the Q factor for an R with positive diagonal, by Householder; differentiable, unlike geoopt's."""
    q, r = torch.linalg.qr(y)
    sign = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q.dtype)
    orthonormal: Tensor = q * sign.unsqueeze(-2)
    return orthonormal


def cholesky_root(gram: Tensor) -> Tensor:
    """Return the upper Cholesky factor without waiting for the device; meaningless if there is none."""
    # the lower factor is faster to compute, but slower to bring into shape
    if gram.shape[-1] >= _LARGE:
        lower: Tensor = torch.linalg.cholesky_ex(gram)[0]
        return lower.mT
    upper: Tensor = torch.linalg.cholesky_ex(gram, upper=True)[0]
    return upper


def times_inverse(y: Tensor, root: Tensor) -> Tensor:
    """Compute ``y root^-1`` for an upper triangular ``root``."""
    n, p = y.shape[-2:]
    # from the right, for which MKL needs half the time
    if n < 2 * p or p < _WIDE:
        solution: Tensor = torch.linalg.solve_triangular(root, y, upper=True, left=False)
        return solution
    # for tall matrices inverting and multiplying is faster, and the result is laid out by rows
    eye = torch.eye(p, dtype=y.dtype, device=y.device).expand_as(root)
    return torch.bmm(y, torch.linalg.solve_triangular(root, eye, upper=True, left=False))


def spd_inverse(root: Tensor) -> Tensor:
    """Return the inverse of ``root^T root`` for an upper triangular ``root``."""
    if root.device.type == "cpu":
        return torch.cholesky_inverse(root, upper=True)
    # on other devices cholesky_inverse would wait to check for errors
    inverse = times_inverse(torch.eye(root.shape[-1], dtype=root.dtype, device=root.device).expand_as(root), root)
    return torch.bmm(inverse, inverse.mT)


def orthonormalised(x: Tensor, u: Tensor) -> Tensor:
    """Return the Q factor, for an R with positive diagonal, of ``x + u`` with a tangent ``u`` at orthonormal ``x``."""
    return _cholesky_qr(x + u) if x.device.type == "cpu" else _shifted_cholesky_qr(x, u)


def _cholesky_qr(y: Tensor) -> Tensor:
    """Factorise by Cholesky-QR once, or for longer steps twice, or for the longest by Householder."""
    # For tangent u, y^T y = I + u^T u has no eigenvalue below 1. So the largest, which is the square of y's condition
    # number and multiplies rounding errors, is at most sqrt(|y^T y|^2 - (p - 1)). Pivots below 1/2 show that u was not
    # tangent.
    if not y.numel():
        return y
    gram = torch.bmm(y.mT, y)
    root = cholesky_root(gram)
    largest = float(torch.linalg.vector_norm(gram.detach(), dim=(-2, -1)).amax()) ** 2 - (gram.shape[-1] - 1)
    smallest = float(root.detach().diagonal(dim1=-2, dim2=-1).amin())
    if not (smallest > 0.5 and largest * torch.finfo(y.dtype).eps ** 2 < 2.0**-14):  # also for NaN
        return signed_qr(y)
    q = times_inverse(y, root)
    return times_inverse(q, cholesky_root(torch.bmm(q.mT, q))) if largest > 16 else q


def _shifted_cholesky_qr(x: Tensor, u: Tensor) -> Tensor:
    """Factorise by shifted Cholesky-QR, three times (Fukaya et al. 2020): for any length, without a device sync."""
    eps = torch.finfo(x.dtype).eps
    # if u is longer than 1 / (8 eps), x is below the rounding error of x + u
    q = x + bounded(u, 2.0 ** math.floor(-3 - math.log2(eps)))
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for shift in (4 * eps, 4 * eps, 0.0):
        gram = torch.bmm(q.mT, q)
        if shift:  # the shift lets Cholesky succeed, and changes R only, so that the next pass finds the same Q
            gram = gram + shift * gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] * eye
        q = times_inverse(q, cholesky_root(gram))
    return q
