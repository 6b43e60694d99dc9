"""That points off their manifold are found and named before a step."""

from __future__ import annotations

import functools
import math
import warnings

import geoopt
import pytest
import torch

import rsam
from rsam.geometry import KernelSphere, Product, off_manifold, warn_off_manifold
from tests.geometry.cases import IDS, MANIFOLDS, Make
from tests.geometry.points import random_points

NOWHERE_OFF = ("Euclidean", "Stereographic k=0", "SphereProjection", "StereographicExact k=0")


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=IDS)
def test_that_rounded_points_are_on_their_manifolds_and_moved_ones_are_not(name, make: Make, shape) -> None:
    manifold = make()
    x = random_points(manifold, shape)
    low = torch.complex64 if x.is_complex() else torch.float32
    dtypes = [x.dtype, low] + ([] if x.is_complex() else [torch.bfloat16, torch.float16])
    for dtype in dtypes:
        points = [x.to(dtype), x.to(dtype)]
        assert off_manifold(Product(points, manifolds=[manifold] * 2)) == {}
    if name.startswith(NOWHERE_OFF):
        return
    moved = x.clone()
    moved[(0,) * (x.dim() - 1) + (-1,)] += 10.0  # violates a norm, a symmetry, a sum or a time, or leaves a ball
    actual = off_manifold(Product([x, moved], manifolds=[manifold] * 2))
    assert list(actual) == [1] and 0.1 < actual[1] < 11


def test_that_the_distance_is_that_to_the_projection() -> None:
    x = torch.tensor([0.6, 0.8], dtype=torch.float64)
    assert off_manifold(Product([1.01 * x], manifolds=[geoopt.Sphere()]))[0] == pytest.approx(0.008)
    for far in (7.0, 15.0):  # the Minkowski square of a rounded point has no right digit here
        y = torch.tensor([math.cosh(far), math.sinh(far), 0.0])
        assert off_manifold(Product([y], manifolds=[geoopt.Lorentz()])) == {}


def test_that_negative_entries_are_off_the_polytope() -> None:
    x = torch.tensor([[1.5, -0.5], [-0.5, 1.5]])  # the row and column sums are right
    assert list(off_manifold(Product([x], manifolds=[geoopt.BirkhoffPolytope()]))) == [0]


OPTIMIZERS = [
    functools.partial(rsam.RSAM, lr=0.1),
    functools.partial(rsam.RSAM, base_optimizer=geoopt.optim.RiemannianAdam, lr=0.1),
    functools.partial(rsam.optim.RiemannianSGD, lr=0.1),
    rsam.optim.RiemannianAdam,
]


def _sphere(*numbers: float) -> geoopt.ManifoldParameter:
    return geoopt.ManifoldParameter(torch.tensor(numbers), manifold=geoopt.Sphere())


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_that_making_an_optimizer_warns_once_by_name(make) -> None:
    params = [_sphere(0.6, 0.8), torch.nn.Parameter(torch.ones(3)), _sphere(0.0, 1.2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = make(params)
        for p in params:
            p.grad = torch.ones_like(p)
        if isinstance(optimizer, rsam.RSAM):
            optimizer.first_step()
            p.grad = torch.ones_like(p)
            optimizer.second_step()
        else:
            optimizer.step()
    (warning,) = [w for w in caught if "off its manifold" in str(w.message)]
    assert str(warning.message) == (  # (1.2 - 1) / 1.2
        "parameter 2 of group 0 (shape (2,), Sphere) is off its manifold by 0.2; put it there first: "
        "with torch.no_grad(): p.copy_(p.manifold.projx(p))"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.add_param_group({"params": [_sphere(1.0, 0.0)]})  # checks the new ones only


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_that_a_point_that_is_not_finite_is_refused_by_name(make) -> None:
    with pytest.raises(rsam.NotFinite, match=r"^parameter 1 of group 0 \(shape \(2,\), Sphere\) is not finite"):
        make([_sphere(0.6, 0.8), _sphere(math.nan, 1.0)])


def test_that_a_point_without_a_projection_is_told_from_others() -> None:
    with pytest.warns(UserWarning, match=r"^parameter 0 .*has no projection onto it .* initialise it anew") as caught:
        warn_off_manifold(Product([_sphere(0.0, 0.0)]), stacklevel=1)
    assert caught[0].filename == __file__


class WithoutProjection(geoopt.Sphere):
    def projx(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def test_that_points_without_numbers_or_a_projection_and_plain_ones_are_not_looked_at() -> None:
    assert off_manifold(Product([torch.ones(3)], manifolds=[WithoutProjection()])) == {}
    meta = KernelSphere().projx(torch.ones(2, 1, 2, 2)).to("meta")
    empty = torch.zeros(0, 3)
    plain = torch.full((2,), math.nan)
    assert off_manifold(Product([meta, empty], manifolds=[KernelSphere(), geoopt.Sphere()])) == {}
    assert off_manifold(Product([plain])) == {}
