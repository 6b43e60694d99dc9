r"""Compute with batches of matrices: symmetric and skew parts, powers, complements.

Orthonormal tangent frames are built from these. A frame at ``x`` is a linear isometry :math:`B_x` from
:math:`\mathbb{R}^d` onto the tangent space. It is smooth in ``x`` except for jumps where a sign or a choice changes, so
that losses may be differentiated through tangents :math:`B_x z`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = [
    "add_scaled",
    "balanced",
    "complement",
    "complement_transpose",
    "dot",
    "independent_rows",
    "largest",
    "point_sums",
    "points_in",
    "powers",
    "skew_from_vector",
    "skew_to_vector",
    "solve",
    "sym",
    "symmetric_from_vector",
    "symmetric_to_vector",
]


def dot(u: Tensor, v: Tensor) -> Tensor:
    """Return inner products of real vectors ``(*batch, n)``, as ``(*batch, 1)``."""
    return (u * v).sum(-1, keepdim=True)


def largest(a: Tensor) -> float:
    """Return the largest modulus of a number in ``a``, 0 if there is none."""
    return float(a.detach().abs().max()) if a.numel() else 0.0


def add_scaled(x: Tensor, u: Tensor, t: float | Tensor) -> Tensor:
    """Return ``x + t u``, in one pass."""
    return torch.addcmul(x, t, u) if isinstance(t, Tensor) else torch.add(x, u, alpha=t)


def points_in(x: Tensor, ndim: int) -> int:
    """Count the points in ``x`` when each has ``ndim`` dimensions."""
    return math.prod(x.shape[: x.dim() - ndim])


def point_sums(t: Tensor, ndim: int) -> Tensor:
    """Sum over the last ``ndim`` dimensions, those of a point, and keep them."""
    return t.sum(tuple(range(-ndim, 0)), keepdim=True) if ndim else t  # over an empty tuple torch sums everything


def sym(a: Tensor) -> Tensor:
    """Return the symmetric part of matrices ``(*batch, n, n)``, transposed without conjugation."""
    return (a + a.mT) * 0.5  # older versions of torch round when they divide a complex64 by 2


def solve(a: Tensor, b: Tensor) -> Tensor:
    """Solve linear systems; a singular one raises on the CPU only, since the check would wait for another device."""
    solution: Tensor = torch.linalg.solve(a, b) if a.device.type == "cpu" else torch.linalg.solve_ex(a, b)[0]
    return solution


def powers(h: Tensor, *exponents: float) -> list[Tensor]:
    """Return powers of positive definite, real symmetric or Hermitian matrices, from one eigendecomposition."""
    values, vectors = torch.linalg.eigh(h)
    return [(vectors * (values**e).unsqueeze(-2).to(vectors.dtype)) @ vectors.mH for e in exponents]


def _reflector(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return ``w``, ``m``, ``s`` of the orthogonal ``q = I - w m^-1 w^T`` that maps ``x`` to ``[s; 0]``.

    ``x`` is ``(*batch, n, p)`` with orthonormal columns, and ``s`` a diagonal matrix of signs. With ``w = x - [s; 0]``
    and ``m = w^T x``, ``q`` is a product of ``p`` Householder reflections in one block; with their signs ``m`` is well
    conditioned (Ballard et al. 2014, Reconstructing Householder vectors from tall-skinny QR).
    """
    p = x.shape[-1]
    packed, tau = torch.geqrf(x.detach())
    # if a column needs no reflection LAPACK makes none, and its sign is the one that makes m singular
    negative = (packed.diagonal(dim1=-2, dim2=-1) < 0) ^ (tau == 0)
    s = torch.where(negative, -1.0, 1.0).to(x.dtype).diag_embed()
    w = torch.cat((x[..., :p, :] - s, x[..., p:, :]), -2)
    return w, torch.eye(p, dtype=x.dtype, device=x.device) - s @ x[..., :p, :], s


def complement(x: Tensor, k: Tensor) -> Tensor:
    """Return ``x_perp k`` with an orthonormal basis ``x_perp`` of the complement of the columns of ``x``; O(npq)."""
    p = x.shape[-1]
    w, m, _ = _reflector(x)
    padded = torch.cat((torch.zeros_like(k[..., :1, :]).expand(*k.shape[:-2], p, k.shape[-1]), k), -2)
    columns: Tensor = padded - w @ torch.linalg.solve(m.mT, x[..., p:, :].mT @ k)
    return columns


def complement_transpose(x: Tensor, c: Tensor) -> Tensor:
    """Return ``x_perp^T c``, the transpose of :func:`complement`."""
    p = x.shape[-1]
    w, m, _ = _reflector(x)
    rows: Tensor = c[..., p:, :] - x[..., p:, :] @ torch.linalg.solve(m, w.mT @ c)
    return rows


def _triangle(n: int, offset: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the lower triangle, and for every entry of a matrix its index in these."""
    rows, columns = torch.tril_indices(n, n, -offset, device=device)
    indices = torch.zeros(n, n, dtype=torch.long, device=device)
    indices[rows, columns] = indices[columns, rows] = torch.arange(len(rows), device=device)
    return torch.stack((rows, columns)), indices


def _symmetric_scale(n: int, like: Tensor) -> Tensor:
    root = math.sqrt(0.5)
    return torch.full((n, n), root, dtype=like.dtype, device=like.device).fill_diagonal_(1)


def symmetric_from_vector(z: Tensor, n: int) -> Tensor:
    """Map ``z``, ``(*batch, n (n + 1) / 2)``, to symmetric matrices ``(*batch, n, n)`` of Frobenius norm ``|z|``."""
    return z[..., _triangle(n, 0, z.device)[1]] * _symmetric_scale(n, z)


def symmetric_to_vector(a: Tensor) -> Tensor:
    """Apply the transpose of :func:`symmetric_from_vector`, to any square ``a``."""
    n = a.shape[-1]
    (rows, columns), _ = _triangle(n, 0, a.device)
    scaled = a * _symmetric_scale(n, a)
    return (scaled.tril() + scaled.triu(1).mT)[..., rows, columns]


def skew_from_vector(z: Tensor, p: int) -> Tensor:
    """Return skew matrices ``(*batch, p, p)`` with lower triangle ``z``, of Frobenius norm ``sqrt(2) |z|``."""
    if p == 1:
        return z.new_zeros(*z.shape[:-1], 1, 1)
    full = z[..., _triangle(p, 1, z.device)[1]]
    return full.tril(-1) - full.triu(1)


def skew_to_vector(a: Tensor) -> Tensor:
    """Apply the transpose of :func:`skew_from_vector`, to any square ``a``."""
    (rows, columns), _ = _triangle(a.shape[-1], 1, a.device)
    return (a - a.mT)[..., rows, columns]


def balanced(gram: Tensor, vectors: Tensor) -> Tensor:
    """Rescale the inner products of vectors as if each had its ambient length, but at most 1, in the metric.

    Of projected unit vectors only those that are short in the ambient space are rounding errors, whatever the factors
    by which the metric scales their coordinates.
    """
    squares = gram.diagonal(dim1=-2, dim2=-1)
    scales = torch.linalg.vector_norm(vectors, dim=-1).clamp_max(1) / squares.sqrt()
    scales = torch.where(squares > 0, scales, 0)
    return scales.unsqueeze(-1) * gram * scales.unsqueeze(-2)


def independent_rows(gram: Tensor) -> Tensor:
    """Choose a well conditioned basis of ``n`` vectors with these products, as unit rows ``(*batch, d, n)``."""
    rest = gram
    rows: list[Tensor] = []
    first = rest.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)
    while True:
        pivots = rest.diagonal(dim1=-2, dim2=-1)
        largest = pivots.amax(-1, keepdim=True)
        if len(rows) == gram.shape[-1] or not (largest > first * math.sqrt(torch.finfo(gram.dtype).eps)).any():
            return torch.stack(rows, -2) if rows else gram[..., :0, :]
        # the first of the large pivots, not the largest: among equal ones rounding would decide
        place = (pivots > largest / 2).to(gram.dtype).argmax(-1, keepdim=True)
        rows.append(torch.zeros_like(pivots).scatter(-1, place, 1.0))
        column = (rest @ rows[-1].unsqueeze(-1)).squeeze(-1)
        pivot = pivots.gather(-1, place).unsqueeze(-1)
        rest = rest - column.unsqueeze(-1) * column.unsqueeze(-2) / pivot
