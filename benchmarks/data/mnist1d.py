"""Generate MNIST-1D (Greydanus and Kobak 2024): signals of length 40 in ten classes.

The package ``mnist1d`` generates them from templates; nothing is downloaded.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.dataset import Dataset, MissingDataset


def load_mnist1d() -> Dataset:
    """Generate the set with its authors' own seed and settings: 4000 training and 1000 test signals.

    Returns
    -------
    Dataset
        Signals of shape ``(1, 40)``, normalised by the package.

    Raises
    ------
    MissingDataset
        If the package is not installed; says how to get it.
    """
    return _generate(5000, 0.8)


def load_mnist1d_large() -> Dataset:
    """Generate more signals with the same settings: 15000 for training and 10000 test signals.

    Returns
    -------
    Dataset
        As of :func:`load_mnist1d`.

    Raises
    ------
    MissingDataset
        As :func:`load_mnist1d`.
    """
    return _generate(25000, 0.6)


def load_mnist1d_anew() -> Dataset:
    """Generate signals that the other sets do not have, by a seed of their own: 20000 for training and 5000 for test.

    Returns
    -------
    Dataset
        As of :func:`load_mnist1d`.

    Raises
    ------
    MissingDataset
        As :func:`load_mnist1d`.
    """
    return _generate(25000, 0.8, seed=1)


def _generate(count: int, training: float, seed: int | None = None) -> Dataset:
    try:
        import mnist1d.data
    except ImportError as error:
        raise MissingDataset("mnist1d: `pip install mnist1d`, whose generator makes the data") from error
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  (the package seeds the global generators)
    try:
        settings = mnist1d.data.get_dataset_args()
        settings.num_samples, settings.train_split = count, training
        settings.seed = settings.seed if seed is None else seed
        arrays = mnist1d.data.make_dataset(settings)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002

    def signals(name: str) -> Tensor:
        return torch.from_numpy(arrays[name].astype(np.float32)).unsqueeze(1)

    def labels(name: str) -> Tensor:
        return torch.from_numpy(arrays[name].astype(np.int64))

    return Dataset(signals("x"), labels("y"), signals("x_test"), labels("y_test"))
