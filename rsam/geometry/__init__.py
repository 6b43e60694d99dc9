"""The tangent-space algebra of a list of parameters, and the manifolds that geoopt lacks."""

from rsam.geometry import manifolds  # noqa: F401  (importing registers them)
from rsam.geometry.base import Geometry, UnsupportedOperation
from rsam.geometry.lists import is_plain, manifold_of
from rsam.geometry.manifolds.kernel import Kernel, KernelSphere, KernelStiefel
from rsam.geometry.manifolds.stiefel import CanonicalStiefel
from rsam.geometry.registry import geometry_of, register
from rsam.geometry.second_order import (
    acceleration,
    connection,
    coordinates_shape,
    from_coordinates,
    random_coordinates,
    random_tangent,
    retract_second_order,
    to_coordinates,
)
from rsam.geometry.vocabulary import (
    component_inner,
    inner,
    logarithm,
    lower_index,
    norm,
    pairing,
    project,
    project_points,
    pullback,
    raise_index,
    restore_tangents,
    retract,
    riemannian_gradient,
    transport,
    transport_back,
)

__all__ = [
    "CanonicalStiefel",
    "Geometry",
    "Kernel",
    "KernelSphere",
    "KernelStiefel",
    "UnsupportedOperation",
    "acceleration",
    "component_inner",
    "connection",
    "coordinates_shape",
    "from_coordinates",
    "geometry_of",
    "inner",
    "is_plain",
    "logarithm",
    "lower_index",
    "manifold_of",
    "norm",
    "pairing",
    "project",
    "project_points",
    "pullback",
    "raise_index",
    "random_coordinates",
    "random_tangent",
    "register",
    "restore_tangents",
    "retract",
    "retract_second_order",
    "riemannian_gradient",
    "to_coordinates",
    "transport",
    "transport_back",
]
