"""That the guide's table of manifolds agrees with the code."""

from __future__ import annotations

from pathlib import Path

import geoopt
import pytest
import torch

import rsam

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "geometry.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
TABLE = {row[0].removesuffix(" (ours)"): row for row in ROWS[1:]}
POINTS = {
    "BirkhoffPolytope": torch.full((2, 2), 0.5),
    "UpperHalf": 1j * torch.eye(2),
    "BoundedDomain": 0.1j * torch.eye(2),
    "KernelSphere": torch.tensor([[[[0.6, 0.8]]]]),
    "KernelStiefel": torch.tensor([[[[0.6, 0.8]]]]),
}


def _has(operation: str, geometry: rsam.geometry.Geometry, x: torch.Tensor) -> str:
    try:
        getattr(geometry, operation)(x, 0 * x)
    except rsam.geometry.UnsupportedOperation:
        return "no"
    return "yes"


def test_every_manifold_of_geoopt_is_in_the_table() -> None:
    abstract = {"Manifold", "Stiefel"}
    names = {n for n, c in vars(geoopt).items() if isinstance(c, type) and issubclass(c, geoopt.Manifold)}
    assert names - abstract <= TABLE.keys()
    assert {"KernelSphere", "KernelStiefel"} <= TABLE.keys()


@pytest.mark.parametrize("name", [n for n, row in TABLE.items() if not row[1].startswith("of its")])
def test_the_table_says_what_the_code_does(name) -> None:
    _, _, order, isometric, momentum, exponential, acceleration, _ = TABLE[name]
    manifold = getattr(geoopt, name, None) or getattr(rsam.geometry, name)
    geometry = rsam.geometry.geometry_of(manifold())
    assert str(geometry.retraction_order) == order.split(";")[0]
    assert {True: "yes", False: "no"}[geometry.isometric] == isometric
    vector = torch.tensor([1.0, 0.0])
    x = POINTS.get(name, vector if geometry.manifold.ndim <= 1 else torch.eye(2))
    assert geometry.momentum_transport == momentum
    assert _has("exponential", geometry, x) == exponential
    assert _has("acceleration", geometry, x) == acceleration
    assert _has("retract", geometry, x) == _has("raise_index", geometry, x) == "yes"
    geometry.random_tangent(x)
