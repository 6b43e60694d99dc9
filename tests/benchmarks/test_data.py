"""That the data in this repository are what they claim, and exactly the given part of labels is made wrong."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch

from benchmarks.data import Dataset, DatasetError, hold_out_validation, with_label_noise
from benchmarks.data.fashion_mnist_mini import PATH, load_fashion_mnist_mini
from benchmarks.data.prepare.fashion_mnist import cut


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_fashion_mnist_mini()


def test_that_both_parts_have_200_images_of_each_class(data) -> None:
    for images, labels in ((data.train_images, data.train_labels), (data.heldout_images, data.heldout_labels)):
        assert images.shape == (2000, 1, 28, 28)
        assert images.dtype == torch.float32
        assert labels.bincount().tolist() == [200] * 10
        assert len(images.unique(dim=0)) > 1990
    assert data.train_images.mean().abs() < 1e-4
    assert abs(data.train_images.std() - 1) < 1e-4


def test_that_the_classes_are_shuffled(data) -> None:
    for labels in (data.train_labels, data.heldout_labels):
        assert len(labels[:100].unique()) == 10


def test_that_exactly_the_asked_part_of_the_labels_is_wrong(data) -> None:
    noisy = with_label_noise(data, 0.2, seed=0)
    wrong = noisy.train_labels != data.train_labels
    assert wrong.sum() == 400
    assert noisy.train_labels.min() == 0
    assert noisy.train_labels.max() == 9
    assert torch.equal(noisy.heldout_labels, data.heldout_labels)
    # each wrong class, and each class, occurs as often as expected
    shift = (noisy.train_labels - data.train_labels)[wrong] % 10
    assert (shift.bincount(minlength=10)[1:] > 20).all()
    assert (data.train_labels[wrong].bincount(minlength=10) > 20).all()


def test_that_label_noise_follows_its_seed_alone(data) -> None:
    first = with_label_noise(data, 0.2, seed=1).train_labels
    torch.manual_seed(5)
    np.random.default_rng(5).random()
    assert torch.equal(first, with_label_noise(data, 0.2, seed=1).train_labels)
    assert not torch.equal(first, with_label_noise(data, 0.2, seed=2).train_labels)
    assert torch.equal(with_label_noise(data, 0.0, seed=1).train_labels, data.train_labels)
    assert not (with_label_noise(data, 1.0, seed=1).train_labels == data.train_labels).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_that_impossible_noise_is_refused(data, fraction) -> None:
    with pytest.raises(ValueError, match="fraction"):
        with_label_noise(data, fraction, seed=0)


def test_that_validation_splits_the_training_data_and_shows_no_test_data(data) -> None:
    split = hold_out_validation(data, 0.2, seed=0)
    assert split.train_images.shape == (1600, 1, 28, 28)
    assert split.heldout_images.shape == (400, 1, 28, 28)

    def sums(images: torch.Tensor) -> list[float]:
        return sorted(images.double().sum((1, 2, 3)).tolist())

    together = torch.cat((split.train_images, split.heldout_images))
    assert sums(together) == sums(data.train_images)
    assert torch.equal(torch.cat((split.train_labels, split.heldout_labels)).bincount(), data.train_labels.bincount())
    again = hold_out_validation(data, 0.2, seed=0)
    assert torch.equal(again.heldout_images, split.heldout_images)
    other = hold_out_validation(data, 0.2, seed=1)
    assert not torch.equal(other.heldout_images, split.heldout_images)


def test_that_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(DatasetError, match=r"gone\.npz is missing; restore it"):
        load_fashion_mnist_mini(tmp_path / "gone.npz")


@pytest.mark.parametrize("damage", ["cut short", "one byte changed", "empty", "other arrays", "other shape"])
def test_that_a_damaged_file_is_named(tmp_path, damage) -> None:
    path = tmp_path / "damaged.npz"
    content = bytearray(PATH.read_bytes())
    if damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "one byte changed":
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other arrays":
        np.savez(path, x=np.zeros(3))
    else:
        with np.load(PATH) as arrays:
            np.savez(path, **{**arrays, "test_labels": arrays["test_labels"][:-1]})
    with pytest.raises(DatasetError, match=r"damaged\.npz is damaged .*; restore it"):
        load_fashion_mnist_mini(path)


def write_idx(path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def package(tmp_path):
    """Write a small package of the same format; the first pixels of an image encode part, number and class."""
    for part, (prefix, count) in enumerate((("train", 60), ("t10k", 40))):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1], images[:, 0, 2] = part, np.arange(count), labels
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def test_that_cutting_is_balanced_and_keeps_images_with_their_labels(package) -> None:
    cut(package, package / "cut.npz", per_class=3)
    with np.load(package / "cut.npz") as arrays:
        for part, name in enumerate(("train", "test")):
            images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
            assert np.bincount(labels).tolist() == [3] * 10
            assert (images[:, 0, 0] == part).all()
            assert (images[:, 0, 2] == labels).all()
            assert len(set(images[:, 0, 1])) == 30


def test_that_cutting_gives_the_same_bytes_each_time(package) -> None:
    cut(package, package / "first.npz", per_class=3)
    cut(package, package / "second.npz", per_class=3)
    assert (package / "first.npz").read_bytes() == (package / "second.npz").read_bytes()


def test_that_an_absent_package_is_named(tmp_path, package) -> None:
    with pytest.raises(DatasetError, match=r"train-images.*`apt-get install dataset-fashion-mnist`"):
        cut(tmp_path / "nowhere", tmp_path / "cut.npz")
    with pytest.raises(ValueError, match="fewer than 5 images of some class"):
        cut(package, tmp_path / "cut.npz", per_class=5)
