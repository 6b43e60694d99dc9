"""Compute on manifolds, one by one or as the product that a model lives on, and add those that geoopt lacks."""

from typing import TYPE_CHECKING, Any

from rsam.errors import UnsupportedOperation
from rsam.geometry import manifolds  # noqa: F401  (importing registers them)
from rsam.geometry.base import Geometry
from rsam.geometry.blocks import Block
from rsam.geometry.manifolds.kernel import Kernel, KernelSphere, KernelStiefel
from rsam.geometry.manifolds.stiefel import CanonicalStiefel
from rsam.geometry.membership import off_manifold, warn_off_manifold
from rsam.geometry.product import Product
from rsam.geometry.registry import geometry_of, is_plain, manifold_of, register
from rsam.geometry.sums import all_finite, pairing, scalar_sum
from rsam.removed import missing

__all__ = [
    "Block",
    "CanonicalStiefel",
    "Geometry",
    "Kernel",
    "KernelSphere",
    "KernelStiefel",
    "Product",
    "UnsupportedOperation",
    "all_finite",
    "geometry_of",
    "is_plain",
    "manifold_of",
    "off_manifold",
    "pairing",
    "register",
    "scalar_sum",
    "warn_off_manifold",
]

if not TYPE_CHECKING:  # to which every name would seem to exist

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name)
