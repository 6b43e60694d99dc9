"""Build chains of convolutions whose blocks have names, in any width and depth."""

from __future__ import annotations

from collections import OrderedDict
from math import prod

from torch import nn

from benchmarks.workloads.networks.small_networks import Shape

__all__ = ["chain", "middle"]

#: Blocks that halve the sides of their inputs, from the first one on.
STRIDED = 3


def chain(
    shape: Shape, classes: int, *, width: int, depth: int, batch_norm: bool = True, dropout: float = 0.0
) -> nn.Sequential:
    """Stack blocks of a convolution and ReLU, and a linear head on all that the last block returns.

    Parameters
    ----------
    shape : tuple of int
        Of one example: ``(channels, height, width)`` for images, ``(channels, length)`` for signals.
    classes : int
        Number of logits.
    width : int
        Filters of the first block; the others have twice as many.
    depth : int
        Number of blocks, named ``block1``, ``block2`` and so on; the first three have a stride of two.
    batch_norm : bool
        Before each ReLU.
    dropout : float
        Probability, before the head.

    Returns
    -------
    torch.nn.Sequential
        Takes examples ``(n, *shape)``.
    """
    channels, *sides = shape
    convolution, norm = {1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}[len(sides)]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(depth):
        filters, stride = width * (2 if i else 1), 2 if i < STRIDED else 1
        block = [
            ("convolution", convolution(channels, filters, 3, stride, 1, bias=not batch_norm)),
            *([("norm", norm(filters))] if batch_norm else []),
            ("relu", nn.ReLU()),
        ]
        parts[f"block{i + 1}"] = nn.Sequential(OrderedDict(block))
        channels, sides = filters, [-(-side // stride) for side in sides]
    parts["flatten"] = nn.Flatten()
    parts["dropout"] = nn.Dropout(dropout)
    parts["head"] = nn.Linear(channels * prod(sides), classes)
    return nn.Sequential(parts)


def middle(depth: int) -> int:
    """Return the number of the middle block of so many."""
    return depth // 2 + 1
