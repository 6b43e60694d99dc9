"""Define geometries, one manifold per file; importing this package registers them all."""

from rsam.geometry.manifolds import (  # noqa: F401
    birkhoff,
    composite,
    euclidean,
    kernel,
    lorentz,
    siegel,
    spd,
    sphere,
    stereographic,
    stiefel,
)

# where older pickles look for them
from rsam.geometry.manifolds.kernel import KernelSphere, KernelStiefel
from rsam.geometry.manifolds.stiefel import CanonicalStiefel

__all__ = ["CanonicalStiefel", "KernelSphere", "KernelStiefel"]
