"""Load a folder of images in torchvision's ``ImageFolder`` layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.data.dataset import Dataset, DatasetError, MissingDataset, hold_out_validation, normalised
from benchmarks.data.directory import data_directory

SIDE = 64


def load_image_folder(name: str) -> Dataset:
    """Load ``NAME/train/CLASS/*`` and ``NAME/test/CLASS/*`` (or ``val``), or ``NAME/CLASS/*``, of the data directory.

    Without a test folder a fifth of the images is held out, the same ones each time. Images are scaled along their
    short side and cropped at the centre, to 64 by 64 pixels, or to the size of the first image if that is square and
    smaller; they are held in memory.

    Parameters
    ----------
    name : str
        Folder below the data directory.

    Returns
    -------
    Dataset
        Images of shape ``(3, 64, 64)``, or smaller.

    Raises
    ------
    MissingDataset
        If the folder is not there.
    DatasetError
        If the layout is neither of these, or training and test classes differ.
    """
    folder = data_directory() / name
    if not folder.is_dir():
        raise MissingDataset(
            f"imagefolder:{name}: there is no folder {folder.absolute()}; give its parent by --data-dir"
        )
    if not (folder / "train").is_dir():
        images, labels, _ = _read(folder, _side(folder))
        data = hold_out_validation(Dataset(images, labels, images[:0], labels[:0]), 0.2, 0)
        return normalised(data.train_images, data.train_labels, data.heldout_images, data.heldout_labels)
    held_out = folder / "test" if (folder / "test").is_dir() else folder / "val"
    side = _side(folder / "train")
    (train_images, train_labels, classes), (images, labels, others) = (
        _read(part, side) for part in (folder / "train", held_out)
    )
    if classes != others:
        raise DatasetError(f"{folder}: the classes of train, {classes}, are not those of {held_out.name}, {others}")
    return normalised(train_images, train_labels, images, labels)


def _side(folder: Path) -> int:
    """Choose the side of the images."""
    from torchvision.datasets import ImageFolder  # here, since it is slow to import and most workers do not need it

    with _readable(folder):
        first, _ = ImageFolder(folder)[0]
    return min(SIDE, first.width) if first.width == first.height else SIDE


def _read(folder: Path, side: int) -> tuple[Tensor, Tensor, list[str]]:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose([v2.PILToTensor(), v2.Resize(side), v2.CenterCrop(side)])
    with _readable(folder):
        content = ImageFolder(folder, transform)
        images, labels = zip(*content, strict=True)
    return torch.stack(images), torch.tensor(labels), content.classes


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Name the folder in errors of reading it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{folder} must contain one folder of images per class ({error})") from error
    except OSError as error:  # the base class of Pillow's errors
        raise DatasetError(f"{folder}: a picture is damaged ({error}); delete or replace it") from error
