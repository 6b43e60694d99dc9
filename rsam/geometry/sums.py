"""Sum over everything in lists of tensors, whatever their dtypes and devices."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rsam.geometry.blocks import HALF, widened
from rsam.geometry.sharded import Shards, agree, local

__all__ = ["Tensors", "all_finite", "pairing", "scalar_sum", "stack_scalars", "wide"]

Tensors = Sequence[Tensor]


def stack_scalars(terms: Tensors) -> Tensor:
    """Stack scalars on the device of the first, in the widest dtype, at least float32."""
    dtypes = {t.dtype for t in terms}
    dtype = functools.reduce(torch.promote_types, dtypes, torch.float32)
    if dtypes != {dtype} or len({t.device for t in terms}) > 1:
        terms = [t.to(terms[0].device, dtype) for t in terms]
    return torch.stack(tuple(terms))


def scalar_sum(terms: Tensors) -> Tensor:
    """Sum scalars on the device of the first, in the widest dtype, at least float32.

    Parameters
    ----------
    terms : list of Tensor
        Scalars of any real dtypes, on any devices.

    Returns
    -------
    Tensor
        Scalar; 0 for an empty list.

    Examples
    --------
    >>> import torch, rsam
    >>> rsam.geometry.scalar_sum([torch.tensor(1.0).half(), torch.tensor(2.0).double()])
    tensor(3., dtype=torch.float64)
    """
    return stack_scalars(terms).sum() if terms else torch.zeros(())


def pairing(covectors: Tensors, tangents: Tensors) -> Tensor:
    """Sum ``covector * tangent`` over everything: the derivative of a function along a tangent.

    With ``tangents = space.raise_index(points, covectors)`` it is the squared Riemannian norm of the gradient.

    Parameters
    ----------
    covectors, tangents : list of Tensor
        Euclidean gradients, and tangent vectors, of the same shapes.

    Returns
    -------
    Tensor
        Scalar, on the first tensor's device; for complex tensors the real part of ``conj(covector) * tangent``.

    Examples
    --------
    >>> import torch, rsam
    >>> rsam.geometry.pairing([torch.tensor([1.0, 2.0]), torch.ones(2)], [torch.tensor([3.0, 4.0]), torch.ones(2)])
    tensor(13.)
    """
    terms = []
    for c, t in zip(covectors, tangents, strict=True):
        if c.dtype in HALF:
            c, t = c.float(), t.float()
        terms.append(torch.vdot(c.reshape(-1), t.reshape(-1)).real)
    return scalar_sum(terms)


@torch.no_grad()
def all_finite(tensors: Tensors, shards: Iterable[Shards | None] = ()) -> bool:
    """Tell whether every number is finite, with one synchronisation of the device unless a number is not.

    Parameters
    ----------
    tensors : list of Tensor
        Real or complex tensors of any shapes and precisions; no integers.
    shards : iterable of Shards, optional
        Meshes of processes that must all have finite numbers; each process must call this function.

    Returns
    -------
    bool
        Whether all numbers are finite, in all of these processes.

    Examples
    --------
    >>> import torch, rsam
    >>> rsam.geometry.all_finite([torch.ones(2), torch.tensor(float("inf"))])
    False
    """
    tensors = [t for t in map(local, tensors) if t.numel()]
    meshes = [one for one in dict.fromkeys(shards) if one is not None]
    if not tensors and not meshes:
        return True
    # norms are cheapest to check, but may overflow although each number is finite
    size = scalar_sum(torch._foreach_norm(wide(tensors)) if tensors else ())
    for mesh in meshes:
        size = mesh.reduce(size.double(), "SUM")
    return math.isfinite(size) or agree(all(map(_is_finite, tensors)), meshes)


def wide(tensors: Tensors) -> list[Tensor]:
    """Convert half precision to single, so that squares neither overflow nor vanish."""
    return list(map(widened, tensors))


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
