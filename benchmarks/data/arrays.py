"""Read files of arrays, and refuse damaged ones."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.data.dataset import DatasetError
from rsam.evaluation.archives import DAMAGE

__all__ = ["read_arrays", "read_idx"]


def read_arrays(path: Path, names: Iterable[str], cure: str) -> dict[str, np.ndarray]:
    """Read arrays of an ``.npz`` file.

    Parameters
    ----------
    path : Path
        The file.
    names : iterable of str
        Names of the arrays to read.
    cure : str
        How to get the file back, for the error.

    Returns
    -------
    dict
        The arrays by name.

    Raises
    ------
    DatasetError
        If the file is missing, damaged or without one of the arrays.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing; {cure}")
    try:
        with np.load(path) as file:
            return {name: file[name] for name in names}
    except DAMAGE as error:
        raise DatasetError(f"{path} is damaged ({error}); {cure}") from error


def read_idx(path: Path, cure: str) -> np.ndarray:
    """Read a gzipped IDX file of bytes, the format of MNIST.

    Parameters
    ----------
    path : Path
        The file.
    cure : str
        How to get the file back, for the error.

    Returns
    -------
    numpy.ndarray
        The array, of dtype ``uint8``.

    Raises
    ------
    DatasetError
        If the file is missing, damaged or of another format.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing; {cure}")
    try:
        content = gzip.decompress(path.read_bytes())
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        if zeros != 0 or kind != 0x08:
            raise ValueError("no IDX file of bytes")
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, zlib.error, struct.error) as error:
        raise DatasetError(f"{path} is damaged ({error}); {cure}") from error
