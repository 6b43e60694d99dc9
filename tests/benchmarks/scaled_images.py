"""Scale images independently of the benchmarks."""

from __future__ import annotations

import numpy as np

from benchmarks.data.dataset import Dataset


def scaled(train: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Normalise images ``(n, channels, height, width)`` by each channel's mean and deviation over the training ones."""
    channels = train.transpose(1, 0, 2, 3).reshape(train.shape[1], -1)
    mean, deviation = (v[:, None, None] for v in (channels.mean(1), channels.std(1, ddof=1)))
    return (images - mean) / deviation


def assert_scaled(actual: Dataset, train: np.ndarray, heldout: np.ndarray) -> None:
    # rounding in single precision: numbers up to 255 minus their mean, divided by a deviation of about 70
    np.testing.assert_allclose(actual.train_images, scaled(train, train), rtol=0, atol=1e-5)
    np.testing.assert_allclose(actual.heldout_images, scaled(train, heldout), rtol=0, atol=1e-5)
