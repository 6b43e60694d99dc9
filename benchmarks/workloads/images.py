"""Images and signals, classified by small networks or residual ones."""

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

__all__ = ["EXAMPLES", "Images", "Kernels", "as_images"]

Kernels = Literal["plain", "spheres", "stiefel"]
_MANIFOLDS: dict[str, geoopt.Manifold] = {
    "spheres": rsam.geometry.KernelSphere(),
    "stiefel": rsam.geometry.KernelStiefel(),
}
VALIDATION_FRACTION = 0.2
#: Training examples around which curvature is measured, drawn once per seed.
EXAMPLES = 500


@dataclass(frozen=True)
class Images:
    """A data set and a network.

    Attributes
    ----------
    dataset, model : str
        See :mod:`benchmarks.data` and :mod:`benchmarks.workloads.networks`.
    label_noise : float
        Part of the training labels that is made wrong.
    batch_size : int
        An epoch drops its last batch if that is smaller: batch norm has no use for few examples.
    augment : bool
        Shift training images by up to an eighth of their width, and mirror half of them.
    examples : int
        How many training examples there are, and test examples at most, drawn once for all seeds; 0 for all of the
        data set.
    kernels : {"plain", "spheres", "stiefel"}
        Where the kernels of convolutions live; all other weights are plain.
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
        """Load images with the labels that are trained on; for validation a fifth, wrong labels too, is held out."""
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
            rsam.nn.constrain(model, _MANIFOLDS[self.kernels], (nn.Conv1d, nn.Conv2d))
        order = np.random.default_rng([seed, 0])  # 1 to 3 are label noise, validation split, measured examples
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
    """Return a workload that is known to be one of images."""
    assert isinstance(workload, Images)
    return workload


def score(model: nn.Module, data: Dataset) -> dict[str, float]:
    """Score by cross-entropy and accuracy on training data, labels as trained on, and accuracy on those held out."""
    outputs = logits(model, data.train_images)
    return {
        "accuracy": accuracy(logits(model, data.heldout_images), data.heldout_labels),
        "train_accuracy": accuracy(outputs, data.train_labels),
        "train_loss": float(cross_entropy(outputs, data.train_labels)),
    }
