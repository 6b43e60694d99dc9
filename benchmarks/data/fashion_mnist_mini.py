"""Load Fashion-MNIST mini, a file of this folder: 2000 training and 2000 test images, 200 of each class in both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.arrays import read_arrays
from benchmarks.data.dataset import Dataset, DatasetError

PATH = Path(__file__).with_name("fashion_mnist_mini.npz")
SHAPES = {
    "train_images": (2000, 28, 28),
    "train_labels": (2000,),
    "test_images": (2000, 28, 28),
    "test_labels": (2000,),
}


def load_fashion_mnist_mini(path: Path = PATH) -> Dataset:
    """Load the images, normalised by the mean and deviation of the training pixels.

    Parameters
    ----------
    path : Path
        The file that :mod:`benchmarks.data.prepare.fashion_mnist` writes.

    Returns
    -------
    Dataset
        With the test images held out.

    Raises
    ------
    DatasetError
        If the file is missing or damaged; names it, and says how to get it back.
    """
    arrays = _read(path)
    train = arrays["train_images"].astype(np.float32)
    mean, deviation = float(train.mean()), float(train.std())

    def images(name: str) -> Tensor:
        return torch.from_numpy((arrays[name].astype(np.float32) - mean) / deviation).unsqueeze(1)

    def labels(name: str) -> Tensor:
        return torch.from_numpy(arrays[name].astype(np.int64))

    return Dataset(images("train_images"), labels("train_labels"), images("test_images"), labels("test_labels"))


def _read(path: Path) -> dict[str, np.ndarray]:
    cure = f"restore it with `git checkout -- {path}`"
    arrays = read_arrays(path, SHAPES, cure)
    for name, shape in SHAPES.items():
        if arrays[name].shape != shape or arrays[name].dtype != np.uint8:
            layout = f"{arrays[name].dtype} {arrays[name].shape}"
            raise DatasetError(f"{path} is damaged ({name} is {layout}, not uint8 {shape}); {cure}")
    return arrays
