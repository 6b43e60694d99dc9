"""Make points for tests of products, and tell how they are stacked."""

import geoopt
import torch

from rsam.geometry import Product


def unit_point(*numbers: float, manifold: geoopt.Manifold | None = None) -> geoopt.ManifoldParameter:
    """Make a parameter on the unit sphere."""
    x = torch.tensor(numbers, dtype=torch.float32)
    return geoopt.ManifoldParameter(x / x.norm(), manifold=manifold or geoopt.Sphere())


def indices_of_blocks(space: Product) -> list[tuple[int, ...]]:
    return [block.indices for block in space.blocks]
