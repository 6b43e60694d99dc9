"""Files of arrays, whole or refused."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from benchmarks.data.dataset import DatasetError

__all__ = ["read_arrays"]


def read_arrays(path: Path, names: Iterable[str], cure: str) -> dict[str, np.ndarray]:
    """Read arrays of an ``.npz`` file.

    Parameters
    ----------
    path : Path
        The file.
    names : iterable of str
        Which arrays.
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
    # of which RuntimeError and TypeError where the damage reads as encryption, or as no archive but one array
    except (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, zlib.error, BadZipFile) as error:
        raise DatasetError(f"{path} is damaged ({error}); {cure}") from error
