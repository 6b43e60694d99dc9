"""Where data sets lie that are too large to come with this repository."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["DIRECTORY", "DOWNLOAD", "data_directory", "may_download"]

#: Environment variables, since worker processes must know too; the command line sets them.
DIRECTORY = "RSAM_DATA"
DOWNLOAD = "RSAM_DOWNLOAD"


def data_directory() -> Path:
    """Find the directory of ``--data-dir`` or the environment variable ``RSAM_DATA``, ``data`` by default."""
    return Path(os.environ.get(DIRECTORY, "data"))


def may_download() -> bool:
    """Tell whether ``--download`` was given, or the environment variable ``RSAM_DOWNLOAD`` is 1."""
    return os.environ.get(DOWNLOAD) == "1"
