"""Data sets by name."""

from collections.abc import Callable

from benchmarks.data.dataset import Dataset, DatasetError, hold_out_validation
from benchmarks.data.fashion_mnist_mini import load_fashion_mnist_mini
from benchmarks.data.label_noise import with_label_noise

__all__ = ["DATASETS", "Dataset", "DatasetError", "hold_out_validation", "with_label_noise"]

DATASETS: dict[str, Callable[[], Dataset]] = {"fashion_mnist_mini": load_fashion_mnist_mini}
