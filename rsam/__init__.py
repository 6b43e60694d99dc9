"""Sharpness-aware minimisation for models whose parameters live on geoopt manifolds."""

from rsam import geometry, nn, optim
from rsam.optim import RSAM

__all__ = ["RSAM", "geometry", "nn", "optim"]
