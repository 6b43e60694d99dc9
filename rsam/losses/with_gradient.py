"""Give a number a gradient that was computed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["with_gradient"]


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, covectors: list[Tensor], *tensors: Tensor) -> Tensor:
        ctx.covectors = covectors
        return value

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        # torch's once_differentiable would let a second derivative pass as zero
        if torch.is_grad_enabled():
            raise RuntimeError("a penalty by differences does not support double backward; use method='exact'")
        factor = grad_output.reshape(())
        return (None, None, *(factor.to(c.device, c.dtype) * c for c in ctx.covectors))


def with_gradient(value: Tensor, covectors: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """Return ``value`` as a function of ``tensors`` whose gradient is ``covectors``.

    Parameters
    ----------
    value : Tensor
        Scalar without a graph.
    covectors, tensors : sequence of Tensor
        Tensors in pairs of the same shape.

    Returns
    -------
    Tensor
        Scalar; ``backward`` gives the tensors ``covectors`` times the gradient that arrives. A second
        derivative raises RuntimeError.
    """
    result: Tensor = _WithGradient.apply(value, list(covectors), *tensors)
    return result
