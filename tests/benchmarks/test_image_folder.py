"""That any folder of images is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.data import DatasetError, MissingDataset, load
from tests.benchmarks.scaled_images import assert_scaled

pytestmark = pytest.mark.usefixtures("directory")


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


def test_that_small_images_keep_their_size(directory) -> None:
    for part in ("train", "test"):
        for value, name in ((10, "cats"), (200, "dogs")):
            _picture(directory / "mine" / part / name / "0.png", value, 32, 32)
    _picture(directory / "mine" / "test" / "cats" / "1.png", 10, 40, 48)
    found = load("imagefolder:mine")
    assert found.train_images.shape == (2, 3, 32, 32)
    assert found.heldout_images.shape == (3, 3, 32, 32)


def test_that_of_a_folder_of_classes_a_fifth_is_held_out(directory) -> None:
    for c, name in enumerate(("cats", "dogs")):
        for i in range(10):
            _picture(directory / "mine" / name / f"{i}.png", 100 * c + 10 * i)
    found = load("imagefolder:mine")
    assert (len(found.train_labels), len(found.heldout_labels)) == (16, 4)
    # each picture has a brightness of its own, which occurs in one part only
    brightness = torch.cat([found.train_images, found.heldout_images])[:, 0, 0, 0]
    order = brightness.argsort()
    assert len(brightness.unique()) == 20
    assert torch.cat([found.train_labels, found.heldout_labels])[order].tolist() == [0] * 10 + [1] * 10
    load.cache_clear()
    assert torch.equal(load("imagefolder:mine").heldout_images, found.heldout_images)


def _write_pictures(folder: Path, pictures: list[np.ndarray]) -> None:
    """Write a class of numbered pictures ``(3, height, width)``."""
    folder.mkdir(parents=True)
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{i}.png")


def test_that_the_middle_of_an_image_is_cut_out(directory) -> None:
    generator = np.random.default_rng(3)
    # each channel has its own brightness; the short side needs no scaling
    brightness = np.array([60, 120, 240]).reshape(3, 1, 1)
    wide, high = ((generator.random((3, *sides)) * brightness).astype(np.uint8) for sides in ((64, 192), (192, 64)))
    _write_pictures(directory / "mine" / "train" / "a", [wide, high])
    _write_pictures(directory / "mine" / "test" / "a", [high, wide, high])
    found = load("imagefolder:mine")
    cut_wide, cut_high = wide[:, :, 64:128], high[:, 64:128, :]
    assert_scaled(found, np.stack([cut_wide, cut_high]), np.stack([cut_high, cut_wide, cut_high]))


def test_that_a_large_image_is_scaled_not_cut(directory) -> None:
    pixels = np.zeros((3, 256, 256), np.uint8)
    pixels[:, :, 64:] = 200
    _write_pictures(directory / "mine" / "train" / "a", [pixels])
    _write_pictures(directory / "mine" / "val" / "a", [pixels, pixels.transpose(0, 2, 1)])
    found = load("imagefolder:mine").heldout_images
    low, high = found.min(), found.max()
    assert low < high
    # four pixels become one; smoothing reaches one or two pixels further
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
    _picture(directory / "mine" / lacking / "0.png", 9)  # an image outside the classes
    with pytest.raises(DatasetError, match=rf"{lacking} must contain one folder of images per class") as caught:
        load("imagefolder:mine")
    assert not isinstance(caught.value, MissingDataset)  # which would make a study skip the case without an error


def test_that_a_damaged_picture_is_named(directory) -> None:
    for part in ("train", "val"):
        _picture(directory / "mine" / part / "a" / "0.png", 9)
    (directory / "mine" / "val" / "a" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"broken\.png"):
        load("imagefolder:mine")
