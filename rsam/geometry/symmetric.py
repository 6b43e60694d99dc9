"""Symmetric parts of matrices, and powers of positive ones."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["powers", "sym"]


def sym(a: Tensor) -> Tensor:
    """Symmetric part of matrices ``(*batch, n, n)``, transposed without conjugation."""
    return (a + a.mT) / 2


def powers(h: Tensor, *exponents: float) -> list[Tensor]:
    """Powers of positive definite, real symmetric or Hermitian matrices, from one eigendecomposition."""
    values, vectors = torch.linalg.eigh(h)
    return [(vectors * (values**e).unsqueeze(-2).to(vectors.dtype)) @ vectors.mH for e in exponents]
