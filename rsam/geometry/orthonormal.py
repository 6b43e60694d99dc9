"""Fast products and factorisations for matrices with orthonormal columns.

Everything here takes and gives *flat* tensors, batches ``(k, n, p)``: bmm and baddbmm skip the checks and copies of
matmul, and fuse an addition. Choices of an algorithm by size are measured on a CPU.
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

# Columns from which on the cost of an operation is that of its arithmetic.
_LARGE = 192
# Columns from which on one more product costs less than a longer triangular solve.
_WIDE = 32


def flat(x: Tensor) -> Tensor:
    """View matrices ``(*batch, n, p)`` as one batch."""
    return x if x.dim() == 3 else x[None] if x.dim() == 2 else x.flatten(0, -3)


def bounded(u: Tensor, longest: float) -> Tensor:
    """Shorten what is longer than ``longest``; a power of two leaves what is shorter as it is, bitwise."""
    return u * (longest / (u * u).sum((-2, -1), keepdim=True).clamp(min=longest**2).sqrt())


def project(x: Tensor, v: Tensor) -> Tensor:
    """Project onto the tangent space: ``v - x sym(x^T v)``."""
    m = torch.bmm(x.mT, v)
    # torch blocks a transposing copy of single large matrices only
    transposed = m[0].mT.contiguous()[None] if len(m) == 1 and m.shape[-1] >= _LARGE else m.mT
    return torch.baddbmm(v, x, m + transposed, alpha=-0.5)


def polish(y: Tensor) -> Tensor:
    """Take a Newton-Schulz step to the polar factor: squares the error of orthonormality."""
    return torch.baddbmm(y, y, torch.bmm(y.mT, y), beta=1.5, alpha=-0.5)


def signed_qr(y: Tensor) -> Tensor:
    """Q factor with positive diagonal of R, by Householder; not in place as geoopt's, so it can be differentiated."""
    q, r = torch.linalg.qr(y)
    sign = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q.dtype)
    return q * sign.unsqueeze(-2)


def cholesky_root(gram: Tensor) -> Tensor:
    """Upper Cholesky factor; where there is none, nonsense. Waits for no device."""
    # the lower one is faster to compute, and slower to bring into shape
    if gram.shape[-1] >= _LARGE:
        return torch.linalg.cholesky_ex(gram)[0].mT
    return torch.linalg.cholesky_ex(gram, upper=True)[0]


def times_inverse(y: Tensor, root: Tensor) -> Tensor:
    """Compute ``y root^-1`` for an upper triangular ``root``."""
    n, p = y.shape[-2:]
    # from the right: MKL needs half the time that it does from the left
    if n < 2 * p or p < _WIDE:
        return torch.linalg.solve_triangular(root, y, upper=True, left=False)
    # tall: inverting and multiplying is faster, and leaves the result in rows
    eye = torch.eye(p, dtype=y.dtype, device=y.device).expand_as(root)
    return torch.bmm(y, torch.linalg.solve_triangular(root, eye, upper=True, left=False))


def spd_inverse(root: Tensor) -> Tensor:
    """Inverse of ``root^T root`` for an upper triangular ``root``."""
    if root.device.type == "cpu":
        return torch.cholesky_inverse(root, upper=True)
    # on other devices that waits to look for errors
    inverse = times_inverse(torch.eye(root.shape[-1], dtype=root.dtype, device=root.device).expand_as(root), root)
    return torch.bmm(inverse, inverse.mT)


def orthonormalised(x: Tensor, u: Tensor) -> Tensor:
    """Q factor, with positive diagonal of R, of ``x + u`` for a tangent ``u`` at orthonormal ``x``."""
    return _cholesky_qr(x + u) if x.device.type == "cpu" else _shifted_cholesky_qr(x, u)


def _cholesky_qr(y: Tensor) -> Tensor:
    """Cholesky-QR once, twice, or QR by Householder, as the step is long."""
    # For tangent u, y^T y = I + u^T u: no eigenvalue is below 1, so the largest, the square of y's condition that the
    # rounding error is multiplied by, is at most sqrt(|y^T y|^2 - (p - 1)). Pivots below 1/2 betray another u.
    if not y.numel():
        return y
    gram = torch.bmm(y.mT, y)
    root = cholesky_root(gram)
    largest = float(torch.linalg.vector_norm(gram.detach(), dim=(-2, -1)).amax()) ** 2 - (gram.shape[-1] - 1)
    smallest = float(root.detach().diagonal(dim1=-2, dim2=-1).amin())
    if not (smallest > 0.5 and largest * torch.finfo(y.dtype).eps ** 2 < 2.0**-14):  # NaN takes this way, too
        return signed_qr(y)
    q = times_inverse(y, root)
    return times_inverse(q, cholesky_root(torch.bmm(q.mT, q))) if largest > 16 else q


def _shifted_cholesky_qr(x: Tensor, u: Tensor) -> Tensor:
    """Shifted Cholesky-QR, three times (Fukaya et al. 2020): right for any length without waiting for the device."""
    eps = torch.finfo(x.dtype).eps
    # beyond a length of 1 / (8 eps) x is below the rounding error of x + u
    q = x + bounded(u, 2.0 ** math.floor(-3 - math.log2(eps)))
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    for shift in (4 * eps, 4 * eps, 0.0):
        gram = torch.bmm(q.mT, q)
        if shift:  # lets Cholesky succeed; it changes R only, so that the next pass still finds the same Q
            gram = gram + shift * gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] * eye
        q = times_inverse(q, cholesky_root(gram))
    return q
