"""Load scikit-learn's handwritten digits for smoke tests: 1797 images of 8 by 8, the last 597 held out."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits as _load
from torch import Tensor

from benchmarks.data.dataset import Dataset

TRAINING = 1200


def load_digits() -> Dataset:
    """Load the images, scaled to mean 0 and deviation 1 of the training pixels.

    The split is by position: digits of one writer follow each other, so that most test digits are by other writers.

    Returns
    -------
    Dataset
        Images of shape ``(1, 8, 8)``.
    """
    pixels, classes = _load(return_X_y=True)
    images = torch.from_numpy(pixels.astype(np.float32)).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(classes.astype(np.int64))
    images = (images - images[:TRAINING].mean()) / images[:TRAINING].std()

    def part(tensor: Tensor) -> tuple[Tensor, Tensor]:
        return tensor[:TRAINING], tensor[TRAINING:]

    (train_images, test_images), (train_labels, test_labels) = part(images), part(labels)
    return Dataset(train_images, train_labels, test_images, test_labels)
