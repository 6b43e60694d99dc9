"""That data sets are what they should be, or say how to be had."""

from __future__ import annotations

import gzip
import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits as sklearn_digits

from benchmarks import data
from benchmarks.data import DatasetError, MissingDataset, load
from benchmarks.data.augmentation import shift_and_mirror
from benchmarks.data.dataset import Dataset, normalised
from benchmarks.data.torchvision_sets import load_fashion_mnist


@pytest.fixture(autouse=True)
def directory(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("RSAM_DATA", str(tmp_path))
    monkeypatch.delenv("RSAM_DOWNLOAD", raising=False)
    load.cache_clear()
    return tmp_path


def test_that_digits_are_scikit_learn_s_and_split_in_order() -> None:
    digits = load("digits")
    pixels, labels = sklearn_digits(return_X_y=True)
    assert torch.equal(torch.cat([digits.train_labels, digits.heldout_labels]), torch.from_numpy(labels))
    assert digits.shape == (1, 8, 8) and digits.classes == 10 and len(digits.train_labels) == 1200
    images = torch.cat([digits.train_images, digits.heldout_images]).flatten(1).double()
    train = pixels[:1200]
    # torch's deviation divides by n - 1, over 76800 pixels
    np.testing.assert_allclose(images, (pixels - train.mean()) / train.std(ddof=1), rtol=1e-4, atol=1e-5)


def test_that_mnist1d_is_its_package_s_and_leaves_the_random_state() -> None:
    import mnist1d.data

    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    first = data.DATASETS["mnist1d"]()
    drawn = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert drawn == (random.random(), np.random.rand())  # noqa: NPY002
    arrays = mnist1d.data.make_dataset()
    assert first.shape == (1, 40) and len(first.train_labels) == 4000
    np.testing.assert_array_equal(first.heldout_images[:, 0], arrays["x_test"].astype(np.float32))
    np.testing.assert_array_equal(first.heldout_labels, arrays["y_test"])


def test_that_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mnist1d", None)
    monkeypatch.setitem(sys.modules, "mnist1d.data", None)
    with pytest.raises(MissingDataset, match="pip install mnist1d"):
        load("mnist1d")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_that_a_missing_set_says_how_to_get_it(name, directory) -> None:
    with pytest.raises(MissingDataset, match=r"--data-dir.*--download") as caught:
        load(name)
    assert str(directory) in str(caught.value)


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def test_that_fashion_mnist_is_read_from_debian_s_package(tmp_path) -> None:
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 6), ("t10k", 3)):
        arrays[part] = generator.integers(0, 256, (count, 28, 28)), np.arange(count)
        _write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", arrays[part][0])
        _write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", arrays[part][1])
    found = load_fashion_mnist(tmp_path)
    assert found.shape == (1, 28, 28) and found.heldout_labels.tolist() == [0, 1, 2]
    train = arrays["train"][0]
    expected = (arrays["t10k"][0] - train.mean()) / train.std(ddof=1)
    np.testing.assert_allclose(found.heldout_images[:, 0], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(MissingDataset, match="apt-get install dataset-fashion-mnist"):
        load_fashion_mnist(tmp_path / "elsewhere")


def _picture(path: Path, value: int, width: int = 80, height: int = 70) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torchvision.io.write_png(torch.full((3, height, width), value, dtype=torch.uint8), str(path))


def test_that_any_folder_of_images_is_read(directory) -> None:
    for part in ("train", "val"):
        for value, name in ((10, "cats"), (200, "dogs")):
            for i in range(2):
                _picture(directory / "mine" / part / name / f"{i}.png", value)
    found = load("imagefolder:mine")
    assert found.shape == (3, 64, 64) and found.train_labels.tolist() == [0, 0, 1, 1]
    assert (found.heldout_images[2:] > 0).all() and (found.heldout_images[:2] < 0).all()
    _picture(directory / "mine" / "val" / "mice" / "0.png", 0)
    load.cache_clear()
    with pytest.raises(DatasetError, match=r"classes of train, .*are not those of val"):
        load("imagefolder:mine")
    with pytest.raises(MissingDataset, match="--data-dir"):
        load("imagefolder:yours")


def test_that_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(DatasetError, match=r"no data set 'mnist'; data sets: .*mnist1d.*imagefolder:NAME"):
        load("mnist")


def test_that_channels_are_scaled_by_the_training_images_only() -> None:
    train = torch.stack([torch.zeros(2, 2, 2), torch.stack([torch.full((2, 2), 2.0), torch.full((2, 2), 20.0)])])
    found = normalised(train, torch.tensor([0, 1]), train[1:] * 3, torch.tensor([2]))
    deviation = (8 / 7) ** 0.5  # of four zeros and four twos
    torch.testing.assert_close(found.heldout_images, torch.full((1, 2, 2, 2), 0.0) + torch.tensor(
        [(6 - 1) / deviation, (60 - 10) / (10 * deviation)]).reshape(1, 2, 1, 1))  # fmt: skip
    assert found.classes == 3


def test_that_a_subset_is_the_same_each_time_and_spares_the_held_out() -> None:
    images = torch.arange(20.0).reshape(20, 1, 1, 1)
    whole = Dataset(images, torch.arange(20), images[:3], torch.arange(3))
    part = whole.subset(8)
    assert torch.equal(part.train_images, whole.subset(8).train_images)
    assert len(set(part.train_labels.tolist())) == 8 and part.train_labels.tolist() != list(range(8))
    assert torch.equal(part.train_images.flatten(), part.train_labels.float())
    assert torch.equal(part.heldout_images, whole.heldout_images)
    assert whole.subset(0) is whole


def test_that_images_are_shifted_and_mirrored() -> None:
    one = torch.arange(1.0, 129.0).reshape(1, 2, 8, 8)
    padded = torch.nn.functional.pad(one, (1, 1, 1, 1))
    shifted = [padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    allowed = [s for base in shifted for s in (base, base.flip(3))]
    found = shift_and_mirror(one.expand(400, 2, 8, 8), np.random.default_rng(0))
    chosen = [next(k for k, a in enumerate(allowed) if torch.equal(image[None], a)) for image in found]
    assert set(chosen) == set(range(18))  # the chance that one of them is missing is 18 (17/18)^400 < 1e-8
    assert 150 < sum(k % 2 for k in chosen) < 250  # five deviations
    assert torch.equal(found, shift_and_mirror(one.expand(400, 2, 8, 8), np.random.default_rng(0)))
