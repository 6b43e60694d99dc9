"""That data sets are what they should be, or say how to be had."""

from __future__ import annotations

import gzip
import pickle
import random
import struct
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits

from benchmarks import data
from benchmarks.data import DatasetError, MissingDataset, load
from benchmarks.data.augmentation import shift_and_mirror
from benchmarks.data.dataset import Dataset, normalised
from benchmarks.data.directory import data_directory
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
    np.testing.assert_array_equal(first.train_images[:, 0], arrays["x"].astype(np.float32))
    np.testing.assert_array_equal(first.train_labels, arrays["y"])
    assert first.train_images.shape == (4000, 1, 40) and first.heldout_images.shape == (1000, 1, 40)


def test_that_a_failing_generator_leaves_the_random_state_too(monkeypatch) -> None:
    import mnist1d.data

    def fail() -> None:
        random.seed(42)
        np.random.seed(42)  # noqa: NPY002
        raise ArithmeticError

    monkeypatch.setattr(mnist1d.data, "make_dataset", fail)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    with pytest.raises(ArithmeticError):
        load("mnist1d")
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002


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


def _scaled(train: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Images ``(n, channels, height, width)`` in units of each channel's deviation over the training ones."""
    channels = train.transpose(1, 0, 2, 3).reshape(train.shape[1], -1)
    mean, deviation = (v[:, None, None] for v in (channels.mean(1), channels.std(1, ddof=1)))
    return (images - mean) / deviation


def _assert_scaled(found: Dataset, train: np.ndarray, heldout: np.ndarray) -> None:
    # single precision of numbers up to 255, less their mean, over a deviation of some 70
    np.testing.assert_allclose(found.train_images, _scaled(train, train), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.heldout_images, _scaled(train, heldout), rtol=0, atol=1e-5)


def _write_raw(directory: Path, generator: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Few images in torchvision's layout: the same files as Debian's, unpacked."""
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
    found = load_fashion_mnist(directory / "nowhere")
    _assert_scaled(found, arrays["train"][0][:, None], arrays["t10k"][0][:, None])
    np.testing.assert_array_equal(found.train_labels, arrays["train"][1])
    np.testing.assert_array_equal(found.heldout_labels, arrays["t10k"][1])
    assert found.train_labels.dtype == found.heldout_labels.dtype == torch.long


def test_that_a_missing_fashion_mnist_tells_all_ways_to_it(directory) -> None:
    with pytest.raises(MissingDataset) as caught:
        load_fashion_mnist(directory / "nowhere")
    for way in ("FashionMNIST", str(directory), "--data-dir", "--download", "apt-get install dataset-fashion-mnist"):
        assert way in str(caught.value)


def _write_cifar(monkeypatch, directory: Path, name: str) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Few images in torchvision's layout, whose check of the files' contents is told to expect just their names."""
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
            # a row of a file holds the red pixels of an image row by row, then the green ones, then the blue ones
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
    found = load(name)
    assert found.shape == (3, 32, 32)
    assert len(found.train_labels) == (20 if name == "cifar10" else 4)
    _assert_scaled(found, train, test)
    assert found.train_labels.tolist() == train_labels
    assert found.heldout_labels.tolist() == test_labels


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


@pytest.mark.parametrize("damage", ["gone", "not packed", "another format", "cut short"])
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
    else:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte\.gz"):
        load_fashion_mnist(tmp_path)


def test_that_damaged_files_of_torchvision_s_are_named(directory) -> None:
    _write_raw(directory, np.random.default_rng(1))
    (directory / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(b"nothing that MNIST knows")
    with pytest.raises(DatasetError, match="FashionMNIST"):
        load_fashion_mnist(directory / "nowhere")


def _picture(path: Path, value: int, width: int = 80, height: int = 70) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (value,) * 3).save(path)


def test_that_any_folder_of_images_is_read(directory) -> None:
    for part in ("train", "val"):
        for value, name in ((10, "cats"), (200, "dogs")):
            for i in range(2):
                _picture(directory / "mine" / part / name / f"{i}.png", value)
    found = load("imagefolder:mine")
    assert found.shape == (3, 64, 64) and found.train_labels.tolist() == [0, 0, 1, 1]
    assert (found.heldout_images[2:] > 0).all() and (found.heldout_images[:2] < 0).all()
    assert found.heldout_labels.tolist() == [0, 0, 1, 1]
    _picture(directory / "mine" / "val" / "mice" / "0.png", 0)
    load.cache_clear()
    with pytest.raises(DatasetError, match=r"classes of train, .*are not those of val"):
        load("imagefolder:mine")
    with pytest.raises(MissingDataset, match="--data-dir"):
        load("imagefolder:yours")


def _write_pictures(folder: Path, pictures: list[np.ndarray]) -> None:
    """One class of pictures ``(3, height, width)``, numbered."""
    folder.mkdir(parents=True)
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{i}.png")


def test_that_the_middle_of_an_image_is_cut_out(directory) -> None:
    generator = np.random.default_rng(3)
    # each channel of its own brightness; the short side needs no scaling
    brightness = np.array([60, 120, 240]).reshape(3, 1, 1)
    wide, high = ((generator.random((3, *sides)) * brightness).astype(np.uint8) for sides in ((64, 192), (192, 64)))
    _write_pictures(directory / "mine" / "train" / "a", [wide, high])
    _write_pictures(directory / "mine" / "test" / "a", [high, wide, high])
    found = load("imagefolder:mine")
    cut_wide, cut_high = wide[:, :, 64:128], high[:, 64:128, :]
    _assert_scaled(found, np.stack([cut_wide, cut_high]), np.stack([cut_high, cut_wide, cut_high]))


def test_that_a_large_image_is_scaled_not_cut(directory) -> None:
    pixels = np.zeros((3, 256, 256), np.uint8)
    pixels[:, :, 64:] = 200
    _write_pictures(directory / "mine" / "train" / "a", [pixels])
    _write_pictures(directory / "mine" / "val" / "a", [pixels, pixels.transpose(0, 2, 1)])
    found = load("imagefolder:mine").heldout_images
    low, high = found.min(), found.max()
    assert low < high
    # four pixels make one, of which smoothing reaches one or two further
    assert (found[0, :, :, :14] == low).all() and (found[0, :, :, 18:] == high).all()
    assert torch.equal(found[1], found[0].mT)


def test_that_test_images_go_before_validation_images(directory) -> None:
    for part, value in (("train", 10), ("val", 20), ("test", 30)):
        _write_pictures(directory / "mine" / part / "a", [np.full((3, 64, 64), value, np.uint8)] * (value // 10))
        _picture(directory / "mine" / part / "a" / "dark.png", 0)
    assert len(load("imagefolder:mine").heldout_labels) == 4


@pytest.mark.parametrize("lacking", ["train", "val"])
def test_that_a_folder_of_another_layout_is_refused(directory, lacking) -> None:
    for part in {"train", "val"} - {lacking}:
        _picture(directory / "mine" / part / "a" / "0.png", 9)
    (directory / "mine" / lacking).mkdir()
    _picture(directory / "mine" / lacking / "0.png", 9)  # in no class
    with pytest.raises(DatasetError, match=rf"{lacking} is no folder of one folder of images a class") as caught:
        load("imagefolder:mine")
    assert not isinstance(caught.value, MissingDataset)  # a study would pass over it without an error


def test_that_a_damaged_picture_is_named(directory) -> None:
    for part in ("train", "val"):
        _picture(directory / "mine" / part / "a" / "0.png", 9)
    (directory / "mine" / "val" / "a" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"broken\.png"):
        load("imagefolder:mine")


def test_that_the_data_directory_is_data_by_default(monkeypatch, directory) -> None:
    assert data_directory() == directory
    monkeypatch.delenv("RSAM_DATA")
    assert data_directory() == Path("data")


def test_that_a_data_set_is_read_once(monkeypatch) -> None:
    made = []
    for name in "abc":
        monkeypatch.setitem(data.DATASETS, name, lambda name=name: made.append(name) or object())
    first, second = load("a"), load("b")
    assert load("a") is first and load("b") is second
    assert made == ["a", "b"]
    load("c")
    assert load("b") is second and made == ["a", "b", "c"]
    load("a")  # only two are kept
    assert made == ["a", "b", "c", "a"]


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


def test_that_a_channel_without_contrast_stays_finite() -> None:
    images = torch.rand(4, 2, 3, 3)
    images[:, 1] = 7.0
    found = normalised(images, torch.arange(4), images, torch.arange(4))
    assert found.train_images.isfinite().all() and found.heldout_images.isfinite().all()


def test_that_classes_that_only_the_held_out_part_has_count() -> None:
    images = torch.zeros(3, 1, 1, 1)
    assert Dataset(images, torch.tensor([0, 1, 1]), images, torch.tensor([0, 6, 2])).classes == 7
    assert Dataset(images, torch.tensor([0, 6, 2]), images, torch.tensor([0, 1, 1])).classes == 7


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


def test_that_the_reach_is_an_eighth_of_the_width() -> None:
    one = torch.arange(1.0, 1 + 3 * 16).reshape(1, 1, 3, 16)
    kept = one.clone()
    padded = torch.nn.functional.pad(one, (2, 2, 2, 2))
    shifted = [padded[:, :, i : i + 3, j : j + 16] for i in range(5) for j in range(5)]
    found = shift_and_mirror(one.expand(1000, 1, 3, 16), np.random.default_rng(1))
    counts = [int((found == image).flatten(1).all(1).sum()) for base in shifted for image in (base, base.flip(3))]
    assert sum(counts) == 1000
    # each of the 50 comes 20 times, with a deviation of 4.4
    assert all(0 < count < 45 for count in counts)
    assert torch.equal(one, kept)
    other = shift_and_mirror(one.expand(1000, 1, 3, 16), np.random.default_rng(2))
    assert not torch.equal(found, other)


def test_that_narrow_images_are_mirrored_only() -> None:
    images = torch.rand(50, 2, 7, 7)
    found = shift_and_mirror(images, np.random.default_rng(0))
    mirrored = (found == images.flip(3)).flatten(1).all(1)
    assert torch.equal(found[~mirrored], images[~mirrored])
    assert 5 < mirrored.sum() < 45  # half of 50, less or more five deviations
