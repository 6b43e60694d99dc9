"""Define workloads, and the problem that a workload prepares for the trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

__all__ = ["Batch", "Heldout", "Problem", "Workload", "cosine", "shuffled"]

Heldout = Literal["test", "validation"]
#: Inputs and targets.
Batch = tuple[Tensor, Tensor]


def shuffled(inputs: Tensor, targets: Tensor, size: int, seed: int) -> Callable[[int], Iterator[Batch]]:
    """Return a function that yields the batches of an epoch: all data once, in an order given by seed and epoch."""

    def batches(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        for chosen in torch.randperm(len(inputs), generator=generator).split(size):
            yield inputs[chosen], targets[chosen]

    return batches


def cosine(progress: float) -> float:
    """Let the learning rate fall to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Problem:
    """Model with its training data, loss and scores.

    Attributes
    ----------
    model : torch.nn.Module
        Freshly initialised, its parameters on their manifolds.
    loss : callable
        Mean loss of outputs and targets.
    batches : callable
        Takes the number of an epoch; returns its batches, the same for all methods. Called once per epoch, in order.
    steps : int
        Number of batches in an epoch.
    scores : callable
        Returns the scores of the model in its present mode, on held-out data and on training data.
    measured : Batch
        Training data on which curvature is measured.
    whole : sequence of Batch
        Training data on which the gradient norm is measured; empty for those of ``measured``.
    schedule : callable
        Takes the finished part of the training, from 0 to 1; returns a factor of the learning rate.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    batches: Callable[[int], Iterable[Batch]]
    steps: int
    scores: Callable[[], dict[str, float]]
    measured: Batch
    whole: Sequence[Batch] = ()
    schedule: Callable[[float], float] = cosine


class Workload(Protocol):
    """Frozen dataclass that says what is trained and scored: data, a model, and the manifolds of its weights."""

    def load(self) -> object:
        """Load the data, and keep them in memory.

        Raises
        ------
        DatasetError
            If the data are missing or damaged; says how to get them.
        """
        ...

    def prepare(self, seed: int, heldout: Heldout) -> Problem:
        """Initialise the model and draw the data of a seed; ``heldout`` names the data to score on."""
        ...
