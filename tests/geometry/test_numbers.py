"""That manifolds whose points are numbers (``ndim`` is 0) are as good as others, one number or an array of them."""

from __future__ import annotations

from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam import geometry
from rsam.curvature import RiemannianHessian, trace
from rsam.testing import check_manifold, check_optimizer, point_from_array, properties
from tests.geometry.positive import Positive

SHAPES = [(), (3,), (2, 3)]


class Phases(geoopt.Manifold):
    """Complex numbers of modulus 1."""

    name, ndim, reversible = "Phases", 0, False

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        return bool(((x.abs() - 1).abs() <= atol).all()), "a modulus is not 1"

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        return bool(((x.conj() * u).real.abs() <= atol).all()), "a vector has a radial part"

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return (u.conj() * (u if v is None else v)).real

    def projx(self, x: Tensor) -> Tensor:
        return x / x.abs()

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return 1j * x * (x.conj() * u).imag

    egrad2rgrad = proju

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return x * torch.exp(1j * (x.conj() * u).imag)

    retr = expmap

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return y * x.conj() * v


@geometry.register(Phases)
class PhasesGeometry(geometry.Geometry):
    """Geometry that allows complex numbers, and has nothing else of its own."""

    numbers = frozenset({"complex"})


@point_from_array.register
def _(manifold: Phases, array: Tensor) -> Tensor:
    return torch.exp(1j * array.imag)


def test_that_points_without_a_rule_of_their_own_are_projected_from_around_one() -> None:
    x = point_from_array.dispatch(object)(Positive(), torch.tensor([0.0, 0.5, -1.0]))
    assert x.tolist() == [1, 1.5, pytest.approx(1e-6)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_that_a_right_manifold_of_numbers_has_every_property(shape: tuple[int, ...]) -> None:
    assert check_manifold(Positive(), shape, max_examples=5).skipped == ()


def test_that_a_right_manifold_of_complex_numbers_has_every_property() -> None:
    report = check_manifold(Phases(), (3,), dtype=torch.complex128, max_examples=5)
    assert report.skipped == ("the logarithm undoes the exponential",)


def test_that_numbers_may_be_a_part_of_a_product() -> None:
    product = geoopt.ProductManifold((Positive(), 2), (geoopt.Sphere(), 3))
    only = [properties.frames_are_orthonormal, properties.a_batch_equals_its_members]
    assert not check_manifold(product, (2, 5), max_examples=5, properties=only).skipped


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_that_rsam_steps_on_numbers_have_every_property(shape: tuple[int, ...]) -> None:
    def factory(params: list[Tensor]) -> rsam.RSAM:
        return rsam.RSAM(params, rsam.optim.RiemannianAdam, rho=0.1, lr=0.1)

    report = check_optimizer(factory, manifold=Positive(), shape=shape, max_examples=5)
    assert report.skipped == ("steps are blind to isometries",)  # none are known


def _away(logs: list[Tensor]) -> Tensor:
    """Return a loss of the logarithms, different in each number."""
    x = torch.cat([p.reshape(-1) for p in logs])
    return ((x - torch.arange(1, len(x) + 1)) ** 2).sum() + x.prod().sin()


@pytest.mark.parametrize(
    ("base", "options"),
    [
        (rsam.optim.RiemannianSGD, {"momentum": 0.9}),
        (rsam.optim.RiemannianSGD, {"transport": "pullback", "radius": "parameter"}),
        (rsam.optim.RiemannianAdam, {"amsgrad": True}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_that_steps_on_positive_numbers_are_those_of_their_logarithms(base: Any, options: dict[str, Any]) -> None:
    starts = [torch.rand(s, dtype=torch.float64) for s in ((), (), (3,))]  # of which the first two are stacked
    manifold = Positive()
    points = [geoopt.ManifoldParameter(start.exp(), manifold=manifold) for start in starts]
    logs = [nn.Parameter(start.clone()) for start in starts]
    for params, to_logs in ((points, lambda ps: [p.log() for p in ps]), (logs, list)):
        optimizer = rsam.RSAM(params, base, lr=0.01, rho=0.1, **options)
        for _ in range(5):
            optimizer.zero_grad()
            _away(to_logs(params)).backward()
            optimizer.first_step(zero_grad=True)
            _away(to_logs(params)).backward()
            optimizer.second_step()
    for point, log, start in zip(points, logs, starts, strict=True):
        assert not torch.allclose(log, start, atol=1e-3)
        torch.testing.assert_close(point.detach().as_subclass(Tensor).log(), log.detach())


def test_that_each_number_has_its_own_radius() -> None:
    x = geoopt.ManifoldParameter(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64), manifold=Positive())
    optimizer = rsam.RSAM([x], lr=0.1, rho=0.1, radius="point")
    (x * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    before = x.detach().as_subclass(Tensor).clone()
    optimizer.first_step()
    moved = (x.detach().as_subclass(Tensor) / before).log()
    torch.testing.assert_close(moved, torch.tensor([0.1, -0.1, 0.1], dtype=torch.float64))


def test_that_a_loaded_momentum_is_projected_at_each_number_by_itself() -> None:
    x = geoopt.ManifoldParameter(torch.tensor([1.0, 1.0j], dtype=torch.complex128), manifold=Phases())
    optimizer = rsam.optim.RiemannianSGD([x], lr=0.0, momentum=0.9)
    x.grad = torch.zeros_like(x)
    # the first is tangent, and so large that the radial part of the second is a rounding error beside it
    optimizer.state[x]["momentum_buffer"] = torch.tensor([1e12j, 1 + 1j], dtype=torch.complex128)
    optimizer.step()
    expected = 0.9 * torch.tensor([1e12j, 1], dtype=torch.complex128)
    torch.testing.assert_close(optimizer.state[x]["momentum_buffer"], expected)


class OfLogarithms(nn.Module):
    """Function of the logarithm of positive numbers."""

    def __init__(self, start: Tensor, positive: bool) -> None:
        super().__init__()
        self.x = geoopt.ManifoldParameter(start.exp(), manifold=Positive()) if positive else nn.Parameter(start)

    def forward(self, arrays: Tensor) -> Tensor:
        return torch.tanh(arrays @ (self.x.log() if isinstance(self.x, geoopt.ManifoldTensor) else self.x).reshape(-1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_that_the_hessian_on_positive_numbers_is_that_of_their_logarithms(shape: tuple[int, ...]) -> None:
    start = torch.rand(shape, dtype=torch.float64)
    data = torch.rand(5, start.numel(), dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    models = [OfLogarithms(start, positive) for positive in (True, False)]
    here, there = (RiemannianHessian(m, nn.MSELoss(), m.parameters(), data) for m in models)
    eye = torch.eye(start.numel(), dtype=torch.float64)
    assert here.shape == (start.numel(), start.numel())
    torch.testing.assert_close(here @ eye, there @ eye)
    torch.testing.assert_close(float(trace(here, method="exact")), float(trace(there, method="exact")))
