"""Sharpness-aware minimisation for models whose parameters live on geoopt manifolds."""

from __future__ import annotations

import importlib
from typing import Any

from rsam import geometry, losses, nn, optim
from rsam.errors import NotFinite
from rsam.optim import RSAM

__all__ = ["RSAM", "NotFinite", "geometry", "losses", "nn", "optim"]

# What needs an extra is imported when it is first asked for.
_EXTRAS = ("curvature", "testing")


def __getattr__(name: str) -> Any:
    if name in _EXTRAS:
        return importlib.import_module(f"rsam.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
