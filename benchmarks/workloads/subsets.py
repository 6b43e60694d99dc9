"""The same part of a data set for all seeds, and its batches in the order of a seed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import Dataset, load, with_label_noise
from benchmarks.machine import device
from benchmarks.workloads.problem import Batch

__all__ = ["Sets", "ordered", "subset"]

#: Takes inputs and a source of randomness, and returns inputs that are moved a little.
Move = Callable[[Tensor, np.random.Generator], Tensor]


@dataclass(frozen=True)
class Sets:
    """A data set, and further training examples.

    Attributes
    ----------
    data : Dataset
        What is trained on, and test data.
    unlabelled : Tensor
        Inputs that nothing is trained on; may be empty.
    labels : Tensor
        Of these, for studies that choose settings by them.
    """

    data: Dataset
    unlabelled: Tensor
    labels: Tensor

    @property
    def validation(self) -> Dataset:
        """The same training data, with those further examples in place of test data."""
        return replace(self.data, heldout_images=self.unlabelled, heldout_labels=self.labels)


@functools.lru_cache(maxsize=2)
def subset(dataset: str, examples: int, label_noise: float = 0.0) -> Sets:
    """Load so many training examples, drawn once for all seeds, and as many others, if there are as many.

    Parameters
    ----------
    dataset : str
        See :mod:`benchmarks.data`.
    examples : int
        How many are trained on.
    label_noise : float
        Part of the labels trained on that is made wrong.
    """
    data = load(dataset)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(data.train_labels)))
    trained, others = order[:examples], order[examples : 2 * examples]
    inputs, labels = data.train_images, data.train_labels
    data = with_label_noise(
        replace(data, train_images=inputs[trained], train_labels=labels[trained]), label_noise, seed=0
    )
    return Sets(data.to(device()), inputs[others].to(device()), labels[others].to(device()))


def ordered(
    data: Dataset, batch_size: int, seed: int, move: Move | None = None
) -> tuple[Callable[[int], Iterator[Batch]], int]:
    """Return a function that yields the batches of an epoch, and how many these are.

    Parameters
    ----------
    data : Dataset
        Of which the training examples are taken.
    batch_size : int
        An epoch drops its last batch if that is smaller.
    seed : int
        Of their order, and of how they are moved.
    move : callable, optional
        Moves the inputs of each batch.
    """
    order, random = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 4])
    count = len(data.train_labels)
    steps = count // batch_size

    def batches(epoch: int) -> Iterator[Batch]:
        shuffled = torch.from_numpy(order.permutation(count))
        for batch in shuffled[: steps * batch_size].split(batch_size):
            inputs = data.train_images[batch]
            yield move(inputs, random) if move else inputs, data.train_labels[batch]

    return batches, steps
