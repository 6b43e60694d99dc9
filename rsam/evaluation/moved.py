"""Give parameters other values for a while, without a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["at_points"]


@contextmanager
def at_points(params: Sequence[Tensor], points: Sequence[Tensor]) -> Iterator[None]:
    """Context in which parameters have the values of ``points``.

    Nothing is copied or written to: the parameters refer to the memory of ``points`` within the context, and to
    their own again after it, also after an exception. So a graph that was built before can still be differentiated,
    which it could not after an in-place change.

    Parameters
    ----------
    params : sequence of Tensor
        Leaf tensors.
    points : sequence of Tensor
        As many tensors, of the shapes, dtypes and devices of the parameters.

    Raises
    ------
    ValueError
        If a point differs from its parameter in shape, dtype or device, or the lists differ in length.

    Examples
    --------
    >>> import torch, rsam.evaluation
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> loss = weight.square().sum()
    >>> with rsam.evaluation.at_points([weight], [torch.zeros(2)]):
    ...     print(weight.square().sum().item())
    0.0
    >>> loss.backward()
    >>> weight.grad
    tensor([2., 2.])
    """
    for i, (p, x) in enumerate(zip(params, points, strict=True)):
        if (p.shape, p.dtype, p.device) != (x.shape, x.dtype, x.device):
            raise ValueError(
                f"point {i} has shape {tuple(x.shape)}, dtype {x.dtype} on {x.device}, but its parameter has "
                f"{tuple(p.shape)}, {p.dtype} on {p.device}"
            )
    olds = [p.data for p in params]
    # autocast keeps its casts of a parameter by the parameter's identity, whatever the values
    torch.clear_autocast_cache()
    try:
        for p, x in zip(params, points, strict=True):
            p.data = x.detach()
        yield
    finally:
        for p, old in zip(params, olds, strict=True):
            p.data = old
        torch.clear_autocast_cache()
