"""Read arrays from files."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["DAMAGE", "read_arrays"]

#: What numpy may raise for a damaged archive: it reads headers by Python's tokenizer and parser, and damage may read as
#: encryption (RuntimeError) or as a single array (TypeError).
DAMAGE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
)


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
    ValueError
        If the archive is damaged; names the file.
    """
    if Path(path).exists() and not zipfile.is_zipfile(path):
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}); save it again, or restore it from a copy") from error
