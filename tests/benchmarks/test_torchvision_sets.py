"""That Fashion-MNIST and CIFAR are read from torchvision's layout, or Debian's."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from benchmarks.data import DatasetError, MissingDataset, load
from benchmarks.data.torchvision_sets import load_fashion_mnist
from tests.benchmarks.scaled_images import assert_scaled

pytestmark = pytest.mark.usefixtures("directory")


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
    actual = load_fashion_mnist(tmp_path)
    assert actual.shape == (1, 28, 28) and actual.heldout_labels.tolist() == [0, 1, 2]
    train = arrays["train"][0]
    expected = (arrays["t10k"][0] - train.mean()) / train.std(ddof=1)
    np.testing.assert_allclose(actual.heldout_images[:, 0], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(MissingDataset, match="apt-get install dataset-fashion-mnist"):
        load_fashion_mnist(tmp_path / "elsewhere")


def _write_raw(directory: Path, generator: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write a few images in torchvision's layout, which has the files of Debian's package, unpacked."""
    raw = directory / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    arrays = {}
    for part, count in (("train", 7), ("t10k", 4)):
        arrays[part] = generator.integers(0, 256, (count, 28, 28)), generator.integers(0, 10, count)
        for what, array in zip(("images-idx3", "labels-idx1"), arrays[part], strict=True):
            _write_idx(raw / "packed", array)
            (raw / f"{part}-{what}-ubyte").write_bytes(gzip.decompress((raw / "packed").read_bytes()))
    return arrays


def test_that_fashion_mnist_is_read_from_torchvision_s_layout(directory) -> None:
    arrays = _write_raw(directory, np.random.default_rng(1))
    actual = load_fashion_mnist(directory / "nowhere")
    assert_scaled(actual, arrays["train"][0][:, None], arrays["t10k"][0][:, None])
    np.testing.assert_array_equal(actual.train_labels, arrays["train"][1])
    np.testing.assert_array_equal(actual.heldout_labels, arrays["t10k"][1])
    assert actual.train_labels.dtype == actual.heldout_labels.dtype == torch.long


def test_that_a_missing_fashion_mnist_tells_all_ways_to_it(directory) -> None:
    with pytest.raises(MissingDataset) as caught:
        load_fashion_mnist(directory / "nowhere")
    for way in ("FashionMNIST", str(directory), "--data-dir", "--download", "apt-get install dataset-fashion-mnist"):
        assert way in str(caught.value)


def _write_cifar(monkeypatch, directory: Path, name: str) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Write a few images in torchvision's layout, and reduce its check of the files to their names."""
    kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    generator = np.random.default_rng(2)
    folder = directory / kind.base_folder
    folder.mkdir()
    classes = 10 if name == "cifar10" else 100
    written = {}
    for attribute in ("train_list", "test_list"):
        files = [file for file, _ in getattr(kind, attribute)]
        monkeypatch.setattr(kind, attribute, [[file, None] for file in files])
        pixels, labels = [], []
        for file in files:
            # each row of a file holds the red pixels of an image, row by row, then the green ones, then the blue ones
            batch = (generator.random((4, 3, 32, 32)) * [[[50]], [[150]], [[255]]]).astype(np.uint8)
            fine = generator.integers(0, classes, 4).tolist()
            content = {"data": batch.reshape(4, 3072), "labels" if name == "cifar10" else "fine_labels": fine}
            if name == "cifar100":
                content["coarse_labels"] = [label // 5 for label in fine]
            (folder / file).write_bytes(pickle.dumps(content))
            pixels.append(batch)
            labels += fine
        written[attribute] = np.concatenate(pixels), labels
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": None})
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: [str(i) for i in range(classes)]}))
    return written


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_that_cifar_is_read_channel_by_channel_with_its_fine_labels(monkeypatch, directory, name) -> None:
    written = _write_cifar(monkeypatch, directory, name)
    (train, train_labels), (test, test_labels) = written["train_list"], written["test_list"]
    actual = load(name)
    assert actual.shape == (3, 32, 32)
    assert len(actual.train_labels) == (20 if name == "cifar10" else 4)
    assert_scaled(actual, train, test)
    assert actual.train_labels.tolist() == train_labels
    assert actual.heldout_labels.tolist() == test_labels


@pytest.mark.parametrize("allowed", [True, False])
def test_that_torchvision_downloads_only_if_it_may(monkeypatch, directory, allowed) -> None:
    asked = []

    def fetch(url: str, root: str | Path, **options: object) -> None:
        asked.append(url)
        _write_cifar(monkeypatch, Path(root), "cifar10")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", fetch)
    if allowed:
        monkeypatch.setenv("RSAM_DOWNLOAD", "1")
        assert len(load("cifar10").train_labels) == 20
    else:
        with pytest.raises(MissingDataset):
            load("cifar10")
    assert asked == [torchvision.datasets.CIFAR10.url] * allowed


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_that_a_set_that_cannot_be_downloaded_is_missing(monkeypatch, directory, name) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise URLError("no route to host")

    for module in (torchvision.datasets.cifar, torchvision.datasets.mnist):
        monkeypatch.setattr(module, "download_and_extract_archive", fail)
    monkeypatch.setenv("RSAM_DOWNLOAD", "1")
    with pytest.raises(MissingDataset, match=r"--data-dir"):
        load_fashion_mnist(directory / "nowhere") if name == "fashion_mnist" else load(name)


@pytest.mark.parametrize("damage", ["gone", "not packed", "another format", "another type", "cut short"])
def test_that_a_damaged_package_is_named(tmp_path, damage) -> None:
    for part in ("train", "t10k"):
        _write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", np.zeros((3, 28, 28)))
        _write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(3))
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    if damage == "gone":
        path.unlink()
    elif damage == "not packed":
        path.write_bytes(b"nothing that gzip knows")
    elif damage == "another format":
        path.write_bytes(gzip.compress(b"nothing that MNIST knows"))
    elif damage == "another type":
        path.write_bytes(gzip.compress(struct.pack(">HBBI3b", 0, 9, 1, 3, -1, 0, 1)))  # signed bytes
    else:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte\.gz"):
        load_fashion_mnist(tmp_path)


def test_that_damaged_files_of_torchvision_s_are_named(directory) -> None:
    _write_raw(directory, np.random.default_rng(1))
    (directory / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"nothing that MNIST knows")
    with pytest.raises(DatasetError, match="FashionMNIST"):
        load_fashion_mnist(directory / "nowhere")
