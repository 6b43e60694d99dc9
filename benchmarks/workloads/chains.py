"""Classify images and signals by chains of convolutions in any width and depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

import rsam
from benchmarks.data import Dataset, load
from benchmarks.data.augmentation import shift, shift_and_mirror
from benchmarks.machine import device
from benchmarks.workloads.images import score
from benchmarks.workloads.networks.chain import chain
from benchmarks.workloads.problem import Heldout, Problem
from benchmarks.workloads.subsets import Sets, ordered, subset

__all__ = ["Chains"]


@dataclass(frozen=True)
class Chains:
    """Workload of a network of the population on a data set.

    Attributes
    ----------
    dataset : str
        See :mod:`benchmarks.data`.
    examples : int
        How many training examples there are, the same ones for all seeds; as many others stay without labels, if there
        are as many.
    width, depth, batch_norm, dropout
        See :func:`~benchmarks.workloads.networks.chain.chain`.
    batch_size : int
        An epoch drops its last batch if that is smaller.
    augment : bool
        Shift training examples by up to an eighth of their width; mirror half of the images.
    label_noise : float
        Part of the training labels that is made wrong, the same ones for all seeds.
    spheres : bool
        Whether the filters of convolutions live on spheres.
    """

    dataset: str
    examples: int
    width: int
    depth: int
    batch_norm: bool
    dropout: float
    batch_size: int
    augment: bool
    label_noise: float = 0.0
    spheres: bool = False

    def load(self) -> Dataset:
        """Load the data set."""
        return load(self.dataset)

    def sets(self) -> Sets:
        """Load what networks are trained on, with the labels they are trained on, and what they are measured on."""
        return subset(self.dataset, self.examples, self.label_noise)

    def network(self) -> nn.Sequential:
        """Initialise a network on the device, with plain weights and from torch's random state."""
        data = self.sets().data
        network = chain(
            data.shape,
            data.classes,
            width=self.width,
            depth=self.depth,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
        )
        return network.to(device())

    def prepare(self, seed: int, heldout: Heldout) -> Problem:
        """Prepare network and batches of a seed.

        Raises
        ------
        ValueError
            For validation data, which the population has no use for.
        """
        if heldout != "test":
            raise ValueError(f"networks of the population are not tuned: heldout must be 'test', got {heldout!r}")
        data = self.sets().data
        torch.manual_seed(seed)
        model = self.network()
        if self.spheres:
            rsam.nn.constrain(model, rsam.geometry.KernelSphere(), (nn.Conv1d, nn.Conv2d))
        move = (shift_and_mirror if len(data.shape) == 3 else shift) if self.augment else None
        batches, steps = ordered(data, self.batch_size, seed, move)
        measured = data.train_images, data.train_labels
        return Problem(model, nn.CrossEntropyLoss(), batches, steps, lambda: score(model, data), measured)
