"""Classify images and signals by small networks or residual ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import geoopt
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.data import Dataset, hold_out_validation, load, with_label_noise
from benchmarks.data.augmentation import shift_and_mirror
from benchmarks.machine import device
from benchmarks.workloads.networks import MODELS
from benchmarks.workloads.problem import Batch, Heldout, Problem, Workload
from benchmarks.workloads.scoring import accuracy, logits

__all__ = ["EXAMPLES", "MANIFOLDS", "Images", "Kernels", "as_images"]

Kernels = Literal["plain", "spheres", "stiefel"]
#: Where kernels are constrained to.
MANIFOLDS: dict[str, geoopt.Manifold] = {
    "spheres": rsam.geometry.KernelSphere(),
    "stiefel": rsam.geometry.KernelStiefel(),
}
VALIDATION_FRACTION = 0.2
#: Number of training examples on which curvature is measured, drawn once per seed.
EXAMPLES = 500


@dataclass(frozen=True)
class Images:
    """Workload of a data set and a network.

    Attributes
    ----------
    dataset, model : str
        See :mod:`benchmarks.data` and :mod:`benchmarks.workloads.networks`.
    label_noise : float
        Part of the training labels that is made wrong.
    batch_size : int
        Examples per batch. A smaller last batch is dropped, since batch norm needs more examples.
    augment : bool
        Shift training images by up to an eighth of their width, and mirror half of them.
    examples : int
        Number of training examples to use, and upper bound of test examples, drawn once for all seeds; 0 for the whole
        data set.
    kernels : {"plain", "spheres", "stiefel"}
        Manifold of the kernels of convolutions; all other weights are plain.
    """

    dataset: str = "fashion_mnist_mini"
    model: str = "small_cnn"
    label_noise: float = 0.2
    batch_size: int = 64
    augment: bool = False
    examples: int = 0
    kernels: Kernels = "plain"

    def load(self) -> Dataset:
        """Load the data set."""
        return load(self.dataset)

    def data(self, seed: int, heldout: Heldout = "test") -> Dataset:
        """Load images with noisy training labels; for validation, hold out a fifth of these with their noisy labels."""
        data = with_label_noise(self.load().subset(self.examples), self.label_noise, seed)
        return hold_out_validation(data, VALIDATION_FRACTION, seed) if heldout == "validation" else data

    def prepare(self, seed: int, heldout: Heldout) -> Problem:
        """Prepare network, batches and scores of a seed.

        Raises
        ------
        ValueError
            If there are fewer training examples than a batch has.
        """
        data = self.data(seed, heldout)
        count, classes, shape = len(data.train_labels), data.classes, data.shape
        steps = count // self.batch_size
        if steps == 0:
            raise ValueError(f"batch_size {self.batch_size} exceeds the {count} training examples")
        data = data.to(device())
        torch.manual_seed(seed)
        model = MODELS[self.model](shape, classes).to(device())
        if self.kernels != "plain":
            rsam.nn.constrain(model, MANIFOLDS[self.kernels], (nn.Conv1d, nn.Conv2d))
        order = np.random.default_rng([seed, 0])  # 1 to 3: label noise, validation, measured examples
        augmentation = np.random.default_rng([seed, 4])

        def batches(epoch: int) -> Iterator[Batch]:
            shuffled = torch.from_numpy(order.permutation(count))
            for batch in shuffled[: steps * self.batch_size].split(self.batch_size):
                images = data.train_images[batch]
                yield shift_and_mirror(images, augmentation) if self.augment else images, data.train_labels[batch]

        def scores() -> dict[str, float]:
            return score(model, data)

        chosen = torch.from_numpy(np.random.default_rng([seed, 3]).permutation(count)[:EXAMPLES])
        measured = data.train_images[chosen], data.train_labels[chosen]
        whole = list(zip(data.train_images.split(EXAMPLES), data.train_labels.split(EXAMPLES), strict=True))
        return Problem(model, nn.CrossEntropyLoss(), batches, steps, scores, measured, whole)


def as_images(workload: Workload) -> Images:
    """Return the workload as one of images; refuse any other."""
    assert isinstance(workload, Images)
    return workload


def score(model: nn.Module, data: Dataset) -> dict[str, float]:
    """Compute cross-entropy and accuracy on the training data with their noisy labels, and held-out accuracy."""
    outputs = logits(model, data.train_images)
    return {
        "accuracy": accuracy(logits(model, data.heldout_images), data.heldout_labels),
        "train_accuracy": accuracy(outputs, data.train_labels),
        "train_loss": float(cross_entropy(outputs, data.train_labels)),
    }
