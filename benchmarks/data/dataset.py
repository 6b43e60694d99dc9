"""Define the common form of all data sets."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


class DatasetError(Exception):
    """A data set is missing or damaged; the message says which file, and how to get it back."""


class MissingDataset(DatasetError):
    """A data set is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Dataset:
    """Training images and labels, and held-out ones to measure accuracy on.

    Attributes
    ----------
    train_images, heldout_images : Tensor
        Float images of shape ``(n, channels, height, width)``, or signals ``(n, channels, length)``.
    train_labels, heldout_labels : Tensor
        Integer classes of shape ``(n,)``.
    """

    train_images: Tensor
    train_labels: Tensor
    heldout_images: Tensor
    heldout_labels: Tensor

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(torch.cat([self.train_labels, self.heldout_labels]).max()) + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.train_images.shape[1:])

    def subset(self, examples: int) -> Dataset:
        """Take so many training examples and at most as many held-out ones, the same each time; 0 takes all."""
        if not examples:
            return self
        generator = np.random.default_rng(0)
        train, heldout = (
            torch.from_numpy(generator.permutation(len(labels))[:examples])
            for labels in (self.train_labels, self.heldout_labels)
        )
        return Dataset(
            self.train_images[train],
            self.train_labels[train],
            self.heldout_images[heldout],
            self.heldout_labels[heldout],
        )

    def to(self, device: torch.device) -> Dataset:
        """Move the data to a device."""
        return Dataset(*(getattr(self, field.name).to(device) for field in fields(self)))


def normalised(train_images: Tensor, train_labels: Tensor, images: Tensor, labels: Tensor) -> Dataset:
    """Normalise bytes by each channel's mean and deviation over the training images."""
    train = train_images.float()
    mean, deviation = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True)
    deviation = torch.where(deviation > 0, deviation, 1.0)  # a channel without contrast stays at 0
    return Dataset((train - mean) / deviation, train_labels.long(), (images.float() - mean) / deviation, labels.long())


def hold_out_validation(data: Dataset, fraction: float, seed: int) -> Dataset:
    """Hold out part of the *training* data, and drop the test data.

    Labels stay as they are: after :func:`~benchmarks.data.label_noise.with_label_noise` the validation labels are as
    noisy as those trained on, since whoever tunes on noisy data has no others.

    Parameters
    ----------
    data : Dataset
        The data set; its held-out part is ignored.
    fraction : float
        Part of the training examples to hold out.
    seed : int
        Seed of the choice.

    Returns
    -------
    Dataset
        The training data, split in two.
    """
    order = torch.from_numpy(np.random.default_rng([seed, 2]).permutation(len(data.train_labels)))
    heldout, train = order.tensor_split([round(fraction * len(order))])
    return replace(
        data,
        train_images=data.train_images[train],
        train_labels=data.train_labels[train],
        heldout_images=data.train_images[heldout],
        heldout_labels=data.train_labels[heldout],
    )
