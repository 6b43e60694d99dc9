"""Read arrays from files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_arrays"]


def read_arrays(path: str | Path) -> dict[str, Any]:
    """Read the arrays of an ``.npz`` archive; none of another file, which numpy would take for a pickled one.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    dict of str to numpy.ndarray
        By name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if Path(path).exists() and not zipfile.is_zipfile(path):
        return {}
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
