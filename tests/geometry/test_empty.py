"""That operations accept batches without points, and return the shapes of other batches."""

from __future__ import annotations

import geoopt
import pytest
import torch

import rsam
from rsam.geometry import Geometry, geometry_of
from rsam.geometry.base import OPERATIONS
from tests.geometry.cases import IDS, MANIFOLDS, Make
from tests.geometry.points import random_points, results


def _shapes(geometry: Geometry, operation: str, x: torch.Tensor) -> list[torch.Size] | None:
    found = results(geometry, operation, x)
    return None if found is None else [r.shape if isinstance(r, torch.Tensor) else r for r in found]


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=IDS)
def test_that_no_points_have_results_of_no_points(name: str, make: Make, shape: tuple[int, ...]) -> None:
    manifold = make().double()
    geometry = geometry_of(manifold)
    two = random_points(manifold, (2, *shape))
    for operation in OPERATIONS.keys() - {"dimension"}:
        expected = _shapes(geometry, operation, two)
        if expected is not None:
            without = [torch.Size((0, *size[1:])) if size else size for size in expected]
            assert _shapes(geometry, operation, two[:0]) == without, operation
    assert geometry.dimension(two[:0]) == 0


@pytest.mark.parametrize("base", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
def test_that_optimizers_step_parameters_without_points(base) -> None:
    for name, make, shape in MANIFOLDS:
        manifold = make()
        x = geoopt.ManifoldParameter(random_points(manifold, (2, *shape))[:0], manifold=manifold)
        for options in ({}, {"ascent": "exponential"}, {"radius": "point", "transport": "pullback"}):
            if options.get("ascent") and name.split()[0] in ("Birkhoff", "UpperHalf", "BoundedDomain"):
                continue  # the manifold has no exponential
            optimizer = rsam.RSAM([x, torch.nn.Parameter(torch.ones(2))], base, lr=0.1, **options)
            for _ in range(2):
                for p in optimizer.param_groups[0]["params"]:
                    p.grad = torch.ones_like(p)
                optimizer.first_step()
                p.grad = torch.ones_like(p)
                optimizer.second_step()
            assert x.shape == (0, *shape), name
