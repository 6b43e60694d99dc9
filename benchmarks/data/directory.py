"""Find the directory of data sets that are too large for this repository."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["DIRECTORY", "DOWNLOAD", "data_directory", "may_download"]

#: Environment variables, which the command line sets: worker processes inherit them.
DIRECTORY = "RSAM_DATA"
DOWNLOAD = "RSAM_DOWNLOAD"


def data_directory() -> Path:
    """Return the directory named by ``--data-dir`` or the environment variable ``RSAM_DATA``; ``data`` by default."""
    return Path(os.environ.get(DIRECTORY, "data"))


def may_download() -> bool:
    """Tell whether ``--download`` was given, or the environment variable ``RSAM_DOWNLOAD`` is 1."""
    return os.environ.get(DOWNLOAD) == "1"
