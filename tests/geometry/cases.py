"""List every manifold that :mod:`rsam.geometry` supports, with shapes of points."""

from __future__ import annotations

from collections.abc import Callable

import geoopt
import torch

from rsam.geometry import CanonicalStiefel, KernelSphere, KernelStiefel

Make = Callable[[], geoopt.Manifold]

SUBSPACE = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 2], [1, 0, 1]], dtype=torch.float64)

_STIEFEL = ((3, 1), (3, 3), (5, 2), (2, 4, 3))  # one column, square, tall, a batch


def _sphere(**options: torch.Tensor) -> Make:
    return lambda: geoopt.Sphere(**options)


def _product() -> geoopt.Manifold:
    return geoopt.ProductManifold((geoopt.Sphere(), 3), (CanonicalStiefel(), (3, 2)), (geoopt.PoincareBall(), 2))


def _stereographic_product() -> geoopt.Manifold:
    return geoopt.StereographicProductManifold((geoopt.SphereProjection(), 3), (geoopt.PoincareBall(), 2))


_LISTED: list[tuple[str, Make, tuple[tuple[int, ...], ...]]] = [
    ("Euclidean ndim=0", geoopt.Euclidean, ((3,),)),
    ("Euclidean ndim=1", lambda: geoopt.Euclidean(1), ((2, 3),)),
    ("Sphere", geoopt.Sphere, ((3,), (2, 4))),
    ("SphereExact", geoopt.SphereExact, ((3,),)),
    ("Sphere intersection", _sphere(intersection=SUBSPACE), ((5,),)),
    ("Sphere complement", _sphere(complement=SUBSPACE[:, :1]), ((2, 5),)),
    ("SphereExact complement", lambda: geoopt.SphereExact(complement=SUBSPACE[:, :2]), ((5,),)),
    ("EuclideanStiefel", geoopt.EuclideanStiefel, _STIEFEL),
    ("EuclideanStiefelExact", geoopt.EuclideanStiefelExact, _STIEFEL),
    ("geoopt CanonicalStiefel", geoopt.CanonicalStiefel, _STIEFEL),
    ("rsam CanonicalStiefel", CanonicalStiefel, _STIEFEL[-1:]),  # its geometry is that of geoopt's
    ("Stereographic k=-1/2", lambda: geoopt.Stereographic(-0.5), ((3,),)),
    ("Stereographic k=0", lambda: geoopt.Stereographic(0.0), ((3,),)),
    ("Stereographic k=0.7", lambda: geoopt.Stereographic(0.7), ((2, 3),)),
    ("StereographicExact k=-1/2", lambda: geoopt.StereographicExact(-0.5), ((2, 3),)),
    ("StereographicExact k=0", lambda: geoopt.StereographicExact(0.0), ((3,),)),
    ("StereographicExact k=0.7", lambda: geoopt.StereographicExact(0.7), ((3,),)),
    ("PoincareBall", geoopt.PoincareBall, ((2,), (2, 3))),
    ("PoincareBallExact", geoopt.PoincareBallExact, ((2, 3),)),
    ("SphereProjection", geoopt.SphereProjection, ((2, 3),)),
    ("SphereProjectionExact", geoopt.SphereProjectionExact, ((3,),)),
    ("Lorentz k=1", geoopt.Lorentz, ((3,),)),
    ("Lorentz k=2", lambda: geoopt.Lorentz(2.0), ((2, 4),)),
    ("SPD", geoopt.SymmetricPositiveDefinite, ((3, 3), (2, 2, 2))),
    ("Birkhoff", geoopt.BirkhoffPolytope, ((3, 3),)),
    ("UpperHalf", geoopt.UpperHalf, ((2, 2), (2, 3, 3))),
    ("BoundedDomain", geoopt.BoundedDomain, ((2, 2), (2, 3, 3))),
    ("Product", _product, ((2, 11),)),
    ("StereographicProduct", _stereographic_product, ((2, 5),)),
    ("Scaled PoincareBall", lambda: geoopt.Scaled(geoopt.PoincareBall(), 2.5), ((2, 3),)),
    ("Scaled Lorentz", lambda: geoopt.Scaled(geoopt.Lorentz(), 0.5), ((3,),)),
    ("Scaled EuclideanStiefel", lambda: geoopt.Scaled(geoopt.EuclideanStiefel(), 2.0), ((3, 2),)),
    ("KernelSphere", KernelSphere, ((3, 1, 2, 2), (2, 2, 1, 1, 2))),
    ("KernelStiefel", KernelStiefel, ((4, 1, 2, 3),)),
    ("KernelStiefel wide", KernelStiefel, ((4, 1, 1, 3),)),
    ("KernelStiefel canonical", lambda: KernelStiefel(True, ndim=2), ((2, 5, 3),)),
]

Case = tuple[str, Make, tuple[int, ...]]


def _case(name: str, make: Make, shape: tuple[int, ...]) -> Case:
    return f"{name} {'x'.join(map(str, shape))}", make, shape


#: Name, factory and shape of each case.
MANIFOLDS: list[Case] = [_case(name, make, shape) for name, make, shapes in _LISTED for shape in shapes]
#: One case of each manifold, with the largest points.
LARGEST: list[Case] = [_case(name, make, shapes[-1]) for name, make, shapes in _LISTED]
IDS = [name for name, _, _ in MANIFOLDS]
