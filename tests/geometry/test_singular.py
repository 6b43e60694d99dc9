"""That the parameter is named, and nothing is written, if a manifold has no finite result."""

from __future__ import annotations

import math

import geoopt
import pytest
import torch

import rsam
from rsam.errors import SingularPoint
from rsam.geometry import Product

SINGULAR = {
    "a vertex of the Birkhoff polytope": (geoopt.BirkhoffPolytope(), torch.eye(3), torch.full((3, 3), 1 / 3)),
    "a face of it": (
        geoopt.BirkhoffPolytope(),
        torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.5, 0.5]]),
        torch.full((3, 3), 1 / 3),
    ),
    "a singular covariance": (geoopt.SymmetricPositiveDefinite(), torch.diag(torch.tensor([1.0, 0.0])), torch.eye(2)),
    "the boundary of the upper half space": (
        geoopt.UpperHalf(),
        torch.zeros(2, 2, dtype=torch.complex64),
        1j * torch.eye(2),
    ),
    "the boundary of the bounded domain": (
        geoopt.BoundedDomain(),
        torch.eye(2, dtype=torch.complex64),
        torch.zeros(2, 2, dtype=torch.complex64),
    ),
    "a part of a product": (
        geoopt.ProductManifold((geoopt.Sphere(), 2), (geoopt.SymmetricPositiveDefinite(), (2, 2))),
        torch.tensor([1.0, 0, 1, 0, 0, 0]),
        torch.tensor([1.0, 0, 1, 0, 0, 1]),
    ),
}


def _parameters(manifold: geoopt.Manifold, *points: torch.Tensor) -> list[geoopt.ManifoldParameter]:
    generator = torch.Generator().manual_seed(0)
    params = [geoopt.ManifoldParameter(x.clone(), manifold=manifold) for x in points]
    for p in params:
        p.grad = torch.randn(p.shape, dtype=p.dtype, generator=generator)
    return params


@pytest.mark.parametrize("make", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("manifold", "singular", "regular"), SINGULAR.values(), ids=SINGULAR)
def test_that_a_singular_point_is_named_and_nothing_is_written(manifold, singular, regular, make, momentum) -> None:
    params = _parameters(manifold, regular, singular, regular)  # one stack
    before = [p.detach().clone() for p in params]
    options = {"momentum": momentum} if make is rsam.optim.RiemannianSGD else {"betas": (momentum, 0.999)}
    optimizer = make(params, lr=0.1, **options)
    try:
        optimizer.step()
    except SingularPoint as error:
        assert str(error).startswith("parameter 1 of group 0 (shape ")
        assert " is not finite though point and vectors are" in str(error)
        assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True)) and not optimizer.state
    else:  # the retractions of Siegel spaces end inside; only the metric, which Adam uses, is singular
        assert make is rsam.optim.RiemannianSGD and type(manifold) in (geoopt.UpperHalf, geoopt.BoundedDomain)
        assert all(p.isfinite().all() for p in params)


@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize(("manifold", "singular", "regular"), SINGULAR.values(), ids=SINGULAR)
def test_that_an_ascent_from_a_singular_point_is_refused_by_name(manifold, singular, regular, policy) -> None:
    params = _parameters(manifold, regular, singular, regular)
    before = [p.detach().clone() for p in params]
    optimizer = rsam.RSAM(params, lr=0.1, nonfinite=policy)
    with pytest.raises(rsam.NotFinite, match="parameter 1 of group 0"):
        optimizer.first_step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_that_numbers_that_are_not_finite_already_are_no_fault_of_the_point() -> None:
    x, nan = torch.eye(2), torch.full((2, 2), math.nan)
    space = Product([x], manifolds=[geoopt.SymmetricPositiveDefinite()])
    assert space.retract([x], [nan])[0].isnan().all()


@pytest.mark.parametrize("make", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_that_huge_steps_on_the_hyperboloid_end_at_points_of_it(make, dtype) -> None:
    x = torch.tensor([[math.sqrt(2), 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=dtype)
    p = geoopt.ManifoldParameter(x, manifold=geoopt.Lorentz())
    optimizer = make([p], lr=1e3)
    directions = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0]], dtype=dtype)
    for _ in range(6):  # to move away from the origin
        p.grad = directions.clone()
        optimizer.step()
        time, space = p.detach()[:, 0].double(), p.detach()[:, 1:].double()
        assert p.isfinite().all() and time.min() > 2**22
        torch.testing.assert_close(
            time, (1 + space.square().sum(-1)).sqrt(), rtol=float(torch.finfo(dtype).eps), atol=0
        )
        assert all(v.isfinite().all() for v in optimizer.state[p].values())


def test_that_the_exponential_of_the_hyperboloid_is_bounded_like_its_retraction() -> None:
    x = torch.tensor([1.0, 0.0, 0.0])
    space = Product([x], manifolds=[geoopt.Lorentz()])
    (short,) = space.exponential([x], [torch.tensor([0.0, 3.0, 4.0])])
    torch.testing.assert_close(short, torch.tensor([math.cosh(5), 0.6 * math.sinh(5), 0.8 * math.sinh(5)]))
    (far,) = space.exponential([x], [torch.tensor([0.0, 300.0, 400.0])])
    assert far.isfinite().all()
    torch.testing.assert_close(far[1:] / far[0], torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize(("dtype", "lr"), [(torch.float32, 1e7), (torch.float64, 1e13)])
def test_that_a_step_whose_matrix_exponential_overflows_is_refused_by_name(dtype, lr) -> None:
    x = geoopt.ManifoldParameter(torch.eye(3, 2, dtype=dtype), manifold=geoopt.EuclideanStiefelExact())
    before = x.detach().clone()
    x.grad = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [1.0, 1.0]], dtype=dtype)
    optimizer = rsam.optim.RiemannianSGD([x], lr=lr)
    with pytest.raises(SingularPoint, match=r"parameter 0 of group 0 .*: its retract is not finite"):
        optimizer.step()
    assert torch.equal(x, before)
