"""Make some training labels wrong on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from benchmarks.data.dataset import Dataset


def with_label_noise(data: Dataset, fraction: float, seed: int) -> Dataset:
    """Add symmetric label noise to the training labels.

    Exactly ``round(fraction * n)`` training examples, drawn without replacement, get a label drawn uniformly from
    the *other* classes, so that exactly this part of the labels is wrong. Held-out labels do not change.

    Parameters
    ----------
    data : Dataset
        The data set, which is not modified.
    fraction : float
        Part of the labels to make wrong, in [0, 1].
    seed : int
        Seed of the choice of examples and of their new labels.

    Returns
    -------
    Dataset
        A copy with new training labels.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction of wrong labels must be in [0, 1], got {fraction}")
    generator = np.random.default_rng([seed, 1])
    labels = data.train_labels.numpy().copy()
    chosen = generator.permutation(len(labels))[: round(fraction * len(labels))]
    shifts = generator.integers(1, data.classes, size=len(chosen))
    labels[chosen] = (labels[chosen] + shifts) % data.classes
    return replace(data, train_labels=torch.from_numpy(labels))
