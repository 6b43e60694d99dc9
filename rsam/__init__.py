"""Minimise losses sharpness-aware, for models whose parameters live on geoopt manifolds."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from rsam import geometry, losses, nn, optim
from rsam.errors import NotFinite
from rsam.optim import RSAM
from rsam.removed import missing

if TYPE_CHECKING:
    __version__: str
    from rsam import curvature as curvature
    from rsam import integrations as integrations
    from rsam import margins as margins
    from rsam import testing as testing

__all__ = ["RSAM", "NotFinite", "__version__", "geometry", "losses", "nn", "optim"]

# Imported when they are first asked for, since they need an extra or take a while.
_LAZY = ("curvature", "integrations", "margins", "testing")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"rsam.{name}")
    if name == "__version__":
        return importlib.metadata.version("rsam")
    raise missing(__name__, name)
