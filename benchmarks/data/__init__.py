"""Load data sets by name."""

import functools
from collections.abc import Callable

from benchmarks.data.dataset import Dataset, DatasetError, MissingDataset, hold_out_validation
from benchmarks.data.digits import load_digits
from benchmarks.data.fashion_mnist_mini import load_fashion_mnist_mini
from benchmarks.data.image_folder import load_image_folder
from benchmarks.data.label_noise import with_label_noise
from benchmarks.data.mnist1d import load_mnist1d, load_mnist1d_anew, load_mnist1d_large
from benchmarks.data.torchvision_sets import load_cifar10, load_cifar100, load_fashion_mnist

__all__ = ["DATASETS", "Dataset", "DatasetError", "MissingDataset", "hold_out_validation", "load", "with_label_noise"]

DATASETS: dict[str, Callable[[], Dataset]] = {
    "fashion_mnist_mini": load_fashion_mnist_mini,
    "digits": load_digits,
    "mnist1d": load_mnist1d,
    "mnist1d_large": load_mnist1d_large,
    "mnist1d_anew": load_mnist1d_anew,
    "fashion_mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
}
_FOLDER = "imagefolder:"


@functools.lru_cache(maxsize=2)
def load(name: str) -> Dataset:
    """Load a data set; the two loaded last stay in memory.

    Parameters
    ----------
    name : str
        One of :data:`DATASETS`, or ``imagefolder:NAME`` for a folder below the data directory.

    Raises
    ------
    DatasetError
        If no data set has that name, or its files are damaged.
    MissingDataset
        If it is not on this machine; says how to get it.
    """
    if name.startswith(_FOLDER):
        return load_image_folder(name.removeprefix(_FOLDER))
    if name not in DATASETS:
        raise DatasetError(f"there is no data set {name!r}; data sets: {', '.join(DATASETS)}, {_FOLDER}NAME")
    return DATASETS[name]()
