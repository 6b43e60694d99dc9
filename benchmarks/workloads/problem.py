"""What a task hands to its trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Batch", "Problem", "shuffled"]

#: Inputs and targets.
Batch = tuple[Tensor, Tensor]


def shuffled(inputs: Tensor, targets: Tensor, size: int, seed: int) -> Callable[[int], Iterator[Batch]]:
    """What makes the batches of an epoch from its number: all data once, in an order of seed and epoch."""

    def batches(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        for chosen in torch.randperm(len(inputs), generator=generator).split(size):
            yield inputs[chosen], targets[chosen]

    return batches


def _constant(progress: float) -> float:
    return 1.0


@dataclass(frozen=True)
class Problem:
    """A model, what it is trained on, and how it is scored.

    Attributes
    ----------
    model : torch.nn.Module
        Freshly initialised, its parameters on their manifolds.
    loss : torch.nn.Module
        Mean loss of outputs and targets.
    batches : callable
        Takes the number of an epoch; returns its batches, the same ones for each method.
    steps : int
        How many batches an epoch has.
    scores : callable
        Scores of the model as it is, on what is held out.
    measured : Batch
        Training data around which curvature is measured.
    schedule : callable
        Takes the part of the training that is done, from 0 to 1; returns what the learning rate is multiplied by.
    """

    model: nn.Module
    loss: nn.Module
    batches: Callable[[int], Iterable[Batch]]
    steps: int
    scores: Callable[[], dict[str, float]]
    measured: Batch
    schedule: Callable[[float], float] = _constant
