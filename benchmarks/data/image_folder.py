"""Any folder of images in torchvision's ``ImageFolder`` layout."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks.data.dataset import Dataset, DatasetError, MissingDataset, hold_out_validation, normalised
from benchmarks.data.directory import data_directory

SIDE = 64


def load_image_folder(name: str) -> Dataset:
    """Load ``NAME/train/CLASS/*`` and ``NAME/test/CLASS/*`` (or ``val``) below the data directory, or ``NAME/CLASS/*``.

    Of the latter a fifth is held out, the same images each time.
    Images are made 64 pixels high and wide, by scaling the short side and cutting out the middle, and held in memory.

    Parameters
    ----------
    name : str
        Folder below the data directory.

    Returns
    -------
    Dataset
        Images of shape ``(3, 64, 64)``.

    Raises
    ------
    MissingDataset
        If the folder is not there.
    DatasetError
        If its layout is another, or training and test classes differ.
    """
    folder = data_directory() / name
    if not folder.is_dir():
        raise MissingDataset(
            f"imagefolder:{name}: there is no folder {folder.absolute()}; give its parent by --data-dir"
        )
    if not (folder / "train").is_dir():
        images, labels, _ = _read(folder)
        data = hold_out_validation(Dataset(images, labels, images[:0], labels[:0]), 0.2, 0)
        return normalised(data.train_images, data.train_labels, data.heldout_images, data.heldout_labels)
    held_out = folder / "test" if (folder / "test").is_dir() else folder / "val"
    (train_images, train_labels, classes), (images, labels, others) = _read(folder / "train"), _read(held_out)
    if classes != others:
        raise DatasetError(f"{folder}: the classes of train, {classes}, are not those of {held_out.name}, {others}")
    return normalised(train_images, train_labels, images, labels)


def _read(folder: Path) -> tuple[Tensor, Tensor, list[str]]:
    from torchvision.datasets import ImageFolder  # here: slow to import, and most workers need none of it
    from torchvision.transforms import v2

    transform = v2.Compose([v2.PILToTensor(), v2.Resize(SIDE), v2.CenterCrop(SIDE)])
    try:
        content = ImageFolder(folder, transform)
    except FileNotFoundError as error:
        raise DatasetError(f"{folder} is no folder of one folder of images a class ({error})") from error
    try:
        images, labels = zip(*content, strict=True)
    except OSError as error:  # Pillow's errors are such
        raise DatasetError(f"{folder}: a picture is damaged ({error}); delete or replace it") from error
    return torch.stack(images), torch.tensor(labels), content.classes
