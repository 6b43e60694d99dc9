"""Classify images and signals of which each seed draws its own training examples."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import rsam
from benchmarks.data import Dataset, load, with_label_noise
from benchmarks.machine import device
from benchmarks.workloads.images import EXAMPLES, MANIFOLDS, Kernels, score
from benchmarks.workloads.networks.chain import chain
from benchmarks.workloads.problem import Batch, Heldout, Problem, Workload
from benchmarks.workloads.scoring import accuracy, logits
from benchmarks.workloads.subsets import ordered

__all__ = ["VALIDATION", "Samples", "Split", "as_samples", "split"]

#: Validation examples; of small data sets a quarter of the training examples.
VALIDATION = 5_000
#: Filters of the first convolution of the small network.
FILTERS = 16
#: Small sets that others were cut to and looked at before: their images are left out of the test examples.
_LOOKED_AT = {"fashion_mnist": "fashion_mnist_mini"}


@dataclass(frozen=True)
class Split:
    """Parts of a data set, the same for all seeds; no example is in two of them.

    Attributes
    ----------
    pool : Batch
        Inputs and labels that seeds draw their training examples from.
    validation : Batch
        Never trained on, with right labels.
    test : Batch
        The test examples of the data set, without those that were looked at before.
    """

    pool: Batch
    validation: Batch
    test: Batch


@functools.lru_cache(maxsize=2)
def split(dataset: str) -> Split:
    """Split a data set, see :mod:`benchmarks.data`, into the pool, validation and test examples."""
    data = load(dataset)
    count = len(data.train_labels)
    order = torch.from_numpy(np.random.default_rng(5).permutation(count))
    validation, pool = order.tensor_split([min(VALIDATION, count // 4)])
    unseen = torch.ones(len(data.heldout_labels), dtype=torch.bool)
    if dataset in _LOOKED_AT:
        mini = load(_LOOKED_AT[dataset])
        known = {image.tobytes() for images in (mini.train_images, mini.heldout_images) for image in _bytes(images)}
        unseen = torch.tensor([image.tobytes() not in known for image in _bytes(data.heldout_images)])
    return Split(
        (data.train_images[pool], data.train_labels[pool]),
        (data.train_images[validation], data.train_labels[validation]),
        (data.heldout_images[unseen], data.heldout_labels[unseen]),
    )


def _bytes(images: Tensor) -> np.ndarray:
    """Undo the normalisation of images of one channel, among which there are black and white pixels."""
    low, high = images.min(), images.max()
    return (255 * (images - low) / (high - low)).round().to(torch.uint8).numpy()


@dataclass(frozen=True)
class Samples:
    """Training examples that each seed draws anew, and a small network.

    The network has ``depth`` blocks of a convolution, batch norm and ReLU, and a linear head
    (:func:`~benchmarks.workloads.networks.chain.chain`); with three of them it is the small network of the other
    studies.

    Attributes
    ----------
    dataset : str
        See :mod:`benchmarks.data`.
    examples : int
        Training examples of a seed, drawn from those that are neither for validation nor for test.
    label_noise : float
        Part of the training labels that is made wrong. Validation and test labels stay right.
    batch_size : int
        An epoch drops its last batch if that is smaller.
    kernels : {"plain", "spheres", "stiefel"}
        Manifold of the kernels of convolutions; all other weights are plain.
    width : float
        Factor of the numbers of filters: 16 in the first block, 32 in the others.
    depth : int
        Number of blocks.
    dropout : float
        Probability, before the head.
    label_smoothing : float
        Part of the target that is spread over all classes, in the loss.
    """

    dataset: str
    examples: int = 2_000
    label_noise: float = 0.0
    batch_size: int = 64
    kernels: Kernels = "plain"
    width: float = 1.0
    depth: int = 3
    dropout: float = 0.0
    label_smoothing: float = 0.0

    def load(self) -> Dataset:
        """Load the data set."""
        return load(self.dataset)

    def data(self, seed: int, heldout: Heldout = "test") -> Dataset:
        """Draw the training examples of a seed; hold out those for validation, or for test.

        Raises
        ------
        ValueError
            If there are fewer examples to draw from.
        """
        parts = split(self.dataset)
        inputs, labels = parts.pool
        if self.examples > len(labels):
            raise ValueError(f"examples must be at most the {len(labels)} of {self.dataset}, got {self.examples}")
        # 0 to 4: batches, label noise, validation of other workloads, measured examples, augmentation
        drawn = torch.from_numpy(np.random.default_rng([seed, 6]).permutation(len(labels))[: self.examples])
        held = parts.test if heldout == "test" else parts.validation
        return with_label_noise(Dataset(inputs[drawn], labels[drawn], *held), self.label_noise, seed)

    def prepare(self, seed: int, heldout: Heldout) -> Problem:
        """Prepare network, batches and scores of a seed; if it is tested, it is scored on validation examples too.

        Raises
        ------
        ValueError
            If there are fewer training examples than a batch has, or fewer in the data set than ``examples``.
        """
        data = self.data(seed, heldout).to(device())
        batches, steps = ordered(data, self.batch_size, seed)
        if steps == 0:
            raise ValueError(f"batch_size {self.batch_size} exceeds the {self.examples} training examples")
        torch.manual_seed(seed)
        model: nn.Module = chain(
            data.shape, data.classes, width=round(FILTERS * self.width), depth=self.depth, dropout=self.dropout
        ).to(device())
        if self.kernels != "plain":
            rsam.nn.constrain(model, MANIFOLDS[self.kernels], (nn.Conv1d, nn.Conv2d))
        inputs, labels = (part.to(device()) for part in split(self.dataset).validation)

        def scores() -> dict[str, float]:
            numbers = score(model, data)
            if heldout == "test":
                numbers["validation_accuracy"] = accuracy(logits(model, inputs), labels)
            return numbers

        chosen = torch.from_numpy(np.random.default_rng([seed, 3]).permutation(self.examples)[:EXAMPLES])
        measured = data.train_images[chosen], data.train_labels[chosen]
        whole = list(zip(data.train_images.split(EXAMPLES), data.train_labels.split(EXAMPLES), strict=True))
        loss = nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)
        return Problem(model, loss, batches, steps, scores, measured, whole)


def as_samples(workload: Workload) -> Samples:
    """Return the workload as one of samples; refuse any other."""
    assert isinstance(workload, Samples)
    return workload
