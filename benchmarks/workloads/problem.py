"""What a workload is, and what it hands to its trainer."""

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
    """Return a function that yields the batches of an epoch: all data once, in an order of seed and epoch."""

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
    """A model, what it is trained on, and how it is scored.

    Attributes
    ----------
    model : torch.nn.Module
        Freshly initialised, its parameters on their manifolds.
    loss : callable
        Mean loss of outputs and targets.
    batches : callable
        Takes the number of an epoch, each once and in order; returns its batches, the same ones for each method.
    steps : int
        How many batches an epoch has.
    scores : callable
        Scores of the model as it is, on what is held out and on what is trained on.
    measured : Batch
        Training data around which curvature is measured.
    whole : sequence of Batch
        Training data of the gradient norm, where these are more.
    schedule : callable
        Takes the part of the training that is done, from 0 to 1; returns what the learning rate is multiplied by.
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
    """What is trained and how it is scored, as a frozen dataclass: data, a model, and where its weights live."""

    def load(self) -> object:
        """Load what may not be on this machine.

        Raises
        ------
        DatasetError
            If it is missing or damaged; says how to get it.
        """
        ...

    def prepare(self, seed: int, heldout: Heldout) -> Problem:
        """Initialise the model and draw the data of a seed; ``heldout`` says what is scored."""
        ...
