"""That methods on manifolds do what their names say, and keep parameters on their manifolds."""

from __future__ import annotations

from dataclasses import replace

import geoopt
import pytest
import torch
from torch import nn

import rsam
from benchmarks.methods import METHODS
from benchmarks.methods.ambient import AmbientAscent
from benchmarks.methods.riemannian import RIEMANNIAN
from benchmarks.run import Run
from benchmarks.workloads.manifolds import MANIFOLDS, TOLERANCE, violation, worst_violation

NAMES = [method.name for method in RIEMANNIAN]
#: By method with an ascent, the method without it.
BASES = {name: "riemannian_adam" if name.endswith("adam") else "riemannian_sgd" for name in NAMES if "sam" in name}
RUN = Run(None, "", 0, lr=0.1, epochs=1, rho=0.3, momentum=0.5)  # type: ignore[arg-type]


class Towards(nn.Module):
    """Squared distance in the ambient space from a point to a fixed one, weighted by coordinate."""

    def __init__(self, point: torch.Tensor, manifold: geoopt.Manifold | None = None) -> None:
        super().__init__()
        self.weights = nn.Parameter(point) if manifold is None else geoopt.ManifoldParameter(point, manifold=manifold)
        generator = torch.Generator().manual_seed(1)
        self.target = torch.rand(point.shape, generator=generator, dtype=point.dtype)
        self.slope = 1 + torch.rand(point.shape, generator=generator, dtype=point.dtype)

    def forward(self) -> torch.Tensor:
        return (self.slope * (self.weights - self.target).square()).sum()


def closure_of(model: Towards, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = model()
        loss.backward()
        return loss

    return closure


def points(name: str) -> torch.Tensor:
    torch.manual_seed(0)
    manifold = MANIFOLDS[name]()
    if name == "spd":
        return manifold.random(3, 3, dtype=torch.float64)
    if name in ("stiefel", "canonical"):
        return torch.linalg.qr(torch.randn(4, 2, dtype=torch.float64))[0].contiguous()
    return manifold.expmap0(0.3 * torch.randn(3, 2 if name == "poincare" else 3, dtype=torch.float64)).detach()


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("place", MANIFOLDS)
def test_that_every_method_descends_and_stays_on_every_manifold(method, place) -> None:
    model = Towards(points(place), MANIFOLDS[place]())
    optimizer = METHODS[method].build(model, replace(RUN, lr=0.01, rho=0.01))
    first = model().item()
    for _ in range(20):
        optimizer.step(closure_of(model, optimizer))
    assert model().item() < first
    # twenty steps in double precision
    assert worst_violation(model) < 0.1


@pytest.mark.parametrize("method", NAMES)
def test_that_a_step_evaluates_as_many_gradients_as_it_says(method) -> None:
    model = Towards(points("stiefel"), MANIFOLDS["stiefel"]())
    optimizer = METHODS[method].build(model, RUN)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    optimizer.step(closure_of(model, optimizer))
    assert len(calls) == METHODS[method].gradients


@pytest.mark.parametrize("name", BASES)
def test_that_the_base_of_a_method_is_its_limit_without_a_radius(name) -> None:
    weights = []
    for method in (name, BASES[name]):
        model = Towards(points("stiefel"), MANIFOLDS["stiefel"]())
        optimizer = METHODS[method].build(model, replace(RUN, rho=1e-12))
        for _ in range(3):
            optimizer.step(closure_of(model, optimizer))
        weights.append(model.weights.detach())
    # a radius of 1e-12 changes gradients by about as much, and Adam's first steps by quotients of gradients
    torch.testing.assert_close(*weights, rtol=0, atol=1e-8)


def test_that_the_projected_ascent_looks_at_the_gradient_on_the_manifold() -> None:
    # the ascent on the circle by hand: step along the Euclidean gradient, then divide by the length
    model = Towards(torch.tensor([0.6, 0.8], dtype=torch.float64), geoopt.Sphere())
    optimizer = AmbientAscent(rsam.optim.RiemannianSGD(model.parameters(), lr=0.1), model, 0.3, project=True)
    x, slope, target = model.weights.detach().clone(), model.slope, model.target
    gradient = 2 * slope * (x - target)
    up = x + 0.3 * gradient / gradient.norm()
    up = up / up.norm()
    there = 2 * slope * (up - target)
    tangent = there - (x @ there) * x
    expected = x - 0.1 * tangent
    optimizer.step(closure_of(model, optimizer))
    torch.testing.assert_close(model.weights.detach(), expected / expected.norm(), rtol=0, atol=1e-14)


# ---- on the manifold


@pytest.mark.parametrize("name", MANIFOLDS)
def test_that_points_satisfy_the_equation_of_their_manifold_and_others_do_not(name) -> None:
    point = points(name)
    assert violation(point, MANIFOLDS[name]()) < 1e-14
    off = -point if name == "spd" else 4 * point if name == "poincare" else 1.1 * point
    assert violation(off, MANIFOLDS[name]()) > TOLERANCE[torch.float32]


@pytest.mark.parametrize("name", MANIFOLDS)
def test_that_a_point_that_is_no_number_is_off_every_manifold(name) -> None:
    assert violation(points(name) * torch.nan, MANIFOLDS[name]()) == float("inf")


def test_that_the_violation_is_what_it_is_called() -> None:
    column = torch.tensor([[1.0], [0.0]])
    assert violation(1.1 * column, geoopt.EuclideanStiefel()) == pytest.approx(0.21, abs=1e-6)
    # -t^2 + x^2 = -1 is violated by 3, relative to t^2 = 4
    assert violation(torch.tensor([2.0, 0.0]), geoopt.Lorentz()) == pytest.approx(0.75)
    assert violation(torch.tensor([-1.0, 0.0]), geoopt.Lorentz()) == float("inf")
    skew = torch.tensor([[2.0, 0.5], [0.0, 2.0]])
    assert violation(skew, geoopt.SymmetricPositiveDefinite()) == pytest.approx(0.25)
    assert violation(1.1 * column.T, geoopt.Sphere()) == pytest.approx(0.1, abs=1e-6)
    kernel = 1.1 * rsam.geometry.KernelSphere().random(4, 2, 3, 3)
    assert violation(kernel, rsam.geometry.KernelSphere()) == pytest.approx(0.1, abs=1e-6)
    with pytest.raises(TypeError, match="BirkhoffPolytope"):
        violation(column, geoopt.BirkhoffPolytope())
