"""Ascend along other directions than the gradient."""

from __future__ import annotations

from torch import Tensor

import rsam

__all__ = ["along_noise"]


def along_noise(weights: rsam.optim.Weights) -> list[Tensor]:
    """Ascend along the gradient without its part along the momentum (Friendly SAM, Li et al. 2024).

    The paper subtracts a running mean of the gradients of its own; the projection needs no memory and no size of it.
    Before there is a momentum it is the gradient.
    """
    gradient, momentum = weights.raise_index(weights.gradients), weights.momentum()
    share = weights.inner(gradient, momentum) / weights.inner(momentum, momentum).clamp_min(1e-30)
    return [g - share * m for g, m in zip(gradient, momentum, strict=True)]
