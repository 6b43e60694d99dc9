"""Sharpness-aware minimisation for models whose parameters live on geoopt manifolds."""

from rsam import geometry

__all__ = ["geometry"]
