"""Make points for tests, call operations at them, and tell how they are stacked."""

from __future__ import annotations

import inspect
from typing import Any

import geoopt
import torch

from rsam.geometry import Geometry, Product, UnsupportedOperation
from rsam.testing import point_from_array
from rsam.testing.points import ambient_dtype


def unit_point(*numbers: float, manifold: geoopt.Manifold | None = None) -> geoopt.ManifoldParameter:
    """Make a parameter on the unit sphere."""
    x = torch.tensor(numbers, dtype=torch.float32)
    return geoopt.ManifoldParameter(x / x.norm(), manifold=manifold or geoopt.Sphere())


def random_points(manifold: geoopt.Manifold, shape: tuple[int, ...], scale: float = 0.25) -> torch.Tensor:
    """Make the same points of each manifold in every test; a small ``scale`` keeps them off the ends of balls."""
    generator = torch.Generator().manual_seed(0)
    ambient = torch.randn(shape, dtype=ambient_dtype(manifold, torch.float64), generator=generator)
    return point_from_array(manifold, scale * ambient)


def results(geometry: Geometry, operation: str, x: torch.Tensor) -> list[Any] | None:
    """Return an operation's results for zero vectors; None if the manifold lacks it."""
    parameters = inspect.signature(getattr(Geometry, operation)).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty][2:]
    vectors = [x if name == "y" else torch.zeros_like(x) for name in required]
    if operation == "from_coordinates":
        vectors = [torch.zeros(geometry.coordinates_shape(x), dtype=x.real.dtype, device=x.device)]
    try:
        result = getattr(geometry, operation)(x, *vectors)
    except UnsupportedOperation:
        return None
    return list(result) if isinstance(result, tuple) and not isinstance(result, torch.Size) else [result]


def indices_of_blocks(space: Product) -> list[tuple[int, ...]]:
    return [block.indices for block in space.blocks]
