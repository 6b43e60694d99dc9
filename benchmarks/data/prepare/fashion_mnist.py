"""Cut ``fashion_mnist_mini.npz`` from Debian's package ``dataset-fashion-mnist``, with the same bytes each time.

::

    apt-get install dataset-fashion-mnist
    python -m benchmarks.data.prepare.fashion_mnist [DIRECTORY]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.data.arrays import read_idx
from benchmarks.data.dataset import DatasetError
from benchmarks.data.fashion_mnist_mini import PATH
from benchmarks.data.torchvision_sets import DEBIAN

SEED = 2017  # the year of the data set
PER_CLASS = 200
CLASSES = 10


def cut(directory: Path, target: Path, per_class: int = PER_CLASS) -> None:
    """Write the small data set.

    Parameters
    ----------
    directory : Path
        Holds the four ``*-ubyte.gz`` files of the package.
    target : Path
        The npz file to write.
    per_class : int
        Images of each class, from each of the training and the test file.

    Raises
    ------
    DatasetError
        If a file of the package is missing or damaged; says how to install it.
    ValueError
        If a class has too few images.
    """
    cure = f"`apt-get install dataset-fashion-mnist` puts it into {DEBIAN}, or give the directory that holds it"
    generator = np.random.default_rng(SEED)
    arrays = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(directory / f"{prefix}-images-idx3-ubyte.gz", cure)
        labels = read_idx(directory / f"{prefix}-labels-idx1-ubyte.gz", cure)
        chosen = np.concatenate(
            [generator.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(CLASSES)]
        )
        if len(chosen) != per_class * CLASSES:
            raise ValueError(f"{directory}: the {part} labels have fewer than {per_class} images of some class")
        chosen = generator.permutation(chosen)
        arrays[f"{part}_images"] = images[chosen]
        arrays[f"{part}_labels"] = labels[chosen]
    np.savez_compressed(target, **arrays)


def main() -> None:
    """Cut the data set from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data.prepare.fashion_mnist",
        description=f"Cut {PATH.name} from Debian's package dataset-fashion-mnist; the same bytes each time.",
    )
    parser.add_argument("directory", type=Path, nargs="?", default=DEBIAN, help="default: %(default)s")
    try:
        cut(parser.parse_args().directory, PATH)
    except (DatasetError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    print(f"wrote {PATH}")


if __name__ == "__main__":
    main()
