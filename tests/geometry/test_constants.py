"""That constants of another precision than the points are converted to that of the points."""

from __future__ import annotations

import inspect

import geoopt
import pytest
import torch

import rsam
from rsam.geometry import Geometry, Product, UnsupportedOperation, geometry_of
from rsam.geometry.base import OPERATIONS
from rsam.testing import point_from_array

DOUBLE = torch.float64


def _manifolds(*size: int) -> dict[str, tuple[geoopt.Manifold, tuple[int, ...]]]:
    """Make manifolds with constants in double precision, scalars as geoopt's own or ``(1,)``, which torch promotes."""

    def c(value: float) -> torch.Tensor:
        return torch.full(size, value, dtype=DOUBLE)

    lorentz = geoopt.Lorentz(c(2.0))
    return {
        "ball": (geoopt.PoincareBall(c(1.5)), (2, 3)),
        "ball exact": (geoopt.PoincareBallExact(c(1.5)), (2, 3)),
        "stereographic": (geoopt.Stereographic(c(-0.5)), (2, 3)),
        "stereographic exact": (geoopt.StereographicExact(c(0.5)), (2, 3)),
        "projected sphere": (geoopt.SphereProjection(c(0.7)), (2, 3)),
        "projected sphere exact": (geoopt.SphereProjectionExact(c(0.7)), (2, 3)),
        "hyperboloid": (lorentz, (2, 3)),
        "scaled": (geoopt.Scaled(geoopt.Sphere(), c(2.0)).double(), (2, 3)),
        "scaled hyperboloid": (geoopt.Scaled(lorentz, c(2.0)).double(), (2, 3)),
        "product": (geoopt.ProductManifold((geoopt.PoincareBall(c(1.5)), 2), (lorentz, 3)), (2, 5)),
        "stereographic product": (
            geoopt.StereographicProductManifold((geoopt.SphereProjection(c(0.7)), 3), (geoopt.PoincareBall(c(1.5)), 2)),
            (2, 5),
        ),
        "subsphere": (geoopt.Sphere(intersection=torch.eye(4, 3, dtype=DOUBLE)), (2, 4)),
        "subsphere exact": (geoopt.SphereExact(complement=torch.eye(4, 1, dtype=DOUBLE)), (2, 4)),
    }


CASES = [(f"{name} {size}", *case) for size in ((), (1,)) for name, case in _manifolds(*size).items()]


def _vectors(geometry: Geometry, operation: str, x: torch.Tensor) -> list[torch.Tensor]:
    parameters = inspect.signature(getattr(Geometry, operation)).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty][2:]
    if operation == "from_coordinates":
        return [torch.ones(geometry.coordinates_shape(x), dtype=x.dtype) / 8]
    u = geometry.project(x, torch.ones_like(x) / 8)
    return [x if name == "y" else u for name in required]


@pytest.mark.parametrize(("name", "manifold", "shape"), CASES, ids=[name for name, _, _ in CASES])
def test_that_results_have_the_dtype_of_the_points_and_the_numbers_of_doubles(name, manifold, shape) -> None:
    geometry = geometry_of(manifold)
    ambient = torch.randn(shape, dtype=DOUBLE, generator=torch.manual_seed(0)) / 4
    wide = point_from_array(manifold, ambient)
    x = wide.float()
    for operation in OPERATIONS.keys() - {"dimension", "coordinates_shape", "random_tangent"}:
        try:
            expected = getattr(geometry, operation)(wide, *_vectors(geometry, operation, wide))
        except UnsupportedOperation:
            continue
        result = getattr(geometry, operation)(x, *_vectors(geometry, operation, x))
        pairs = zip(result, expected, strict=True) if isinstance(result, tuple) else [(result, expected)]
        for low, high in pairs:
            assert low.dtype == torch.float32, operation
            # a few hundred rounding errors, since the metric and differences of points amplify them
            torch.testing.assert_close(low.double(), high, rtol=2e-4, atol=2e-4, msg=operation)
    assert geometry.random_tangent(x).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("base", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
def test_that_weights_and_momentum_keep_their_dtype(base, dtype) -> None:
    for name, manifold, shape in CASES:
        x = point_from_array(manifold, torch.full(shape, 0.1, dtype=DOUBLE)).to(dtype)
        params = [geoopt.ManifoldParameter(x.clone(), manifold=manifold) for _ in range(2)]
        options = {"momentum": 0.9} if base is rsam.optim.RiemannianSGD else {}
        optimizer = rsam.RSAM(params, base, lr=0.1, **options)
        for _ in range(2):
            for p in params:
                p.grad = torch.ones_like(p)
            optimizer.first_step()
            p.grad = torch.ones_like(p)
            optimizer.second_step()
        for p in params:
            assert p.dtype == dtype and p.isfinite().all(), name
            floats = [v for v in optimizer.state[p].values() if v.dim()]
            assert floats and all(v.dtype == dtype for v in floats), name
        (y,) = Product(params[:1]).exponential([x], [torch.zeros_like(x)])
        assert y.dtype == dtype, name
