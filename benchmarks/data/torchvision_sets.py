"""Load Fashion-MNIST, CIFAR-10 and CIFAR-100 in torchvision's layout below the data directory."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.arrays import read_idx
from benchmarks.data.dataset import Dataset, DatasetError, MissingDataset, normalised
from benchmarks.data.directory import data_directory, may_download

#: Directory of the files of Debian's package ``dataset-fashion-mnist``.
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def load_fashion_mnist(debian: Path = DEBIAN) -> Dataset:
    """Load all 60000 training and 10000 test images, from the data directory or else from Debian's package.

    Parameters
    ----------
    debian : Path
        Directory of that package's files.

    Returns
    -------
    Dataset
        Images of shape ``(1, 28, 28)``.

    Raises
    ------
    MissingDataset
        If neither exists; says how to get them.
    """
    given = (data_directory() / "FashionMNIST").is_dir()
    if not given and (debian / "train-images-idx3-ubyte.gz").exists():
        arrays = [
            read_idx(debian / f"{part}-{what}-ubyte.gz", "reinstall Debian's package dataset-fashion-mnist")
            for part in ("train", "t10k")
            for what in ("images-idx3", "labels-idx1")
        ]
        train_images, train_labels, test_images, test_labels = (torch.from_numpy(array.copy()) for array in arrays)
    else:
        hint = "; or `apt-get install dataset-fashion-mnist`"
        train_images, train_labels, test_images, test_labels = _parts("FashionMNIST", hint)
    return normalised(train_images.unsqueeze(1), train_labels, test_images.unsqueeze(1), test_labels)


def load_cifar10() -> Dataset:
    """Load CIFAR-10: 50000 training and 10000 test images of shape ``(3, 32, 32)`` in ten classes.

    Raises
    ------
    MissingDataset
        If it is not there; says how to get it.
    """
    return _load_cifar("CIFAR10")


def load_cifar100() -> Dataset:
    """Load CIFAR-100, as CIFAR-10 but with a hundred classes.

    Raises
    ------
    MissingDataset
        If it is not there; says how to get it.
    """
    return _load_cifar("CIFAR100")


def _load_cifar(name: str) -> Dataset:
    train_images, train_labels, test_images, test_labels = _parts(name)
    return normalised(train_images.permute(0, 3, 1, 2), train_labels, test_images.permute(0, 3, 1, 2), test_labels)


def _parts(name: str, hint: str = "") -> list[Tensor]:
    """Load torchvision's training images and labels, and its test images and labels."""
    import torchvision  # here, since it is slow to import and most workers do not need it

    kind, root = getattr(torchvision.datasets, name), data_directory()
    try:
        parts = [kind(root, train=train, download=may_download()) for train in (True, False)]
    except (RuntimeError, URLError) as error:  # missing, or the download failed
        raise MissingDataset(
            f"{name} is not in {root.absolute()}: give the directory that holds it in torchvision's layout by "
            f"--data-dir, or let torchvision fetch it there by --download{hint} ({error})"
        ) from error
    except (AssertionError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise DatasetError(
            f"{name} in {root.absolute()} is damaged ({error!r}); delete it there, and get it again"
        ) from error
    return [torch.as_tensor(np.asarray(content)) for part in parts for content in (part.data, part.targets)]
