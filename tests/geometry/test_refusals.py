"""That manifolds of other libraries, and wrong kinds of numbers, are refused by name before a step."""

from __future__ import annotations

import functools

import geoopt
import pytest
import torch

import rsam
from rsam.geometry import Geometry, KernelSphere, Product, geometry_of, register
from tests.geometry.cases import IDS, MANIFOLDS, Make

OPTIMIZERS = [
    functools.partial(rsam.RSAM, lr=0.1),
    functools.partial(rsam.RSAM, base_optimizer=geoopt.optim.RiemannianSGD, lr=0.1),
    functools.partial(rsam.optim.RiemannianSGD, lr=0.1),
    rsam.optim.RiemannianAdam,
    Product,
]


def _lives_on_complex_numbers(name: str) -> bool:
    return name.split()[0] in ("UpperHalf", "BoundedDomain")


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=IDS)
def test_that_points_have_the_numbers_of_their_manifold(name: str, make: Make, shape: tuple[int, ...]) -> None:
    real, complex_ = torch.zeros(shape), torch.zeros(shape, dtype=torch.complex64)
    right, wrong = (complex_, real) if _lives_on_complex_numbers(name) else (real, complex_)
    manifold = make()
    Product([right], manifolds=[manifold])
    if isinstance(manifold, geoopt.Euclidean):
        Product([wrong], manifolds=[manifold])
        return
    found = "real" if wrong is real else "complex"
    with pytest.raises(ValueError, match=rf"^parameter 1 \(shape .*its numbers are {found}, but"):
        Product([real, wrong], manifolds=[geoopt.Euclidean(), manifold])


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_that_complex_weights_on_a_real_manifold_are_refused_when_an_optimizer_is_made(make) -> None:
    x = geoopt.ManifoldParameter(torch.tensor([1.0, 0.0], dtype=torch.complex64), manifold=geoopt.Sphere())
    with pytest.raises(ValueError, match=r"^parameter 0.*\(shape \(2,\), Sphere\): its numbers are complex"):
        make([x])


def test_that_complex_weights_are_refused_by_constrain() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3, dtype=torch.complex64))
    before = [type(p) for p in model.parameters()]
    with pytest.raises(ValueError, match=r"'1\.weight' \(shape \(3, 3\), KernelSphere\(Sphere\)\): its numbers"):
        rsam.nn.constrain(model, KernelSphere(), "*.weight")
    assert [type(p) for p in model.parameters()] == before


def test_that_a_manifold_of_ones_own_may_say_that_it_takes_complex_numbers() -> None:
    class Unitary(geoopt.Euclidean):
        pass

    class Circles(geoopt.Sphere):
        pass

    @register(Circles)
    class CirclesGeometry(Geometry):
        numbers = frozenset({"complex"})

    x = torch.ones(2, dtype=torch.complex64)
    Product([x, x], manifolds=[Unitary(), Circles()])
    with pytest.raises(ValueError, match="its numbers are real"):
        Product([x.real], manifolds=[Circles()])


# -- another library's ------------------------------------------------------------------------------------------------


class Ball:
    """Manifold of another library, whose methods take the curvature."""

    name = "PoincareBall"

    def egrad2rgrad(self, p, dp, c):
        return dp


class Nameless:
    pass


@pytest.mark.parametrize("manifold", [Ball(), Nameless(), geoopt.Sphere], ids=["own", "nameless", "class"])
def test_that_a_foreign_manifold_is_refused_by_constrain(manifold) -> None:
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"is no geoopt\.Manifold"):
        rsam.nn.constrain(layer, manifold)
    assert type(layer.weight) is torch.nn.Parameter


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("manifold", [Ball(), Nameless(), geoopt.Sphere], ids=["own", "nameless", "class"])
def test_that_a_foreign_manifold_is_refused_when_an_optimizer_is_made(make, manifold) -> None:
    p = torch.nn.Parameter(torch.ones(2) * 0.1)
    p.manifold = manifold
    name = "Sphere" if manifold is geoopt.Sphere else rf"{type(manifold).__name__} of the package 'tests'"
    with pytest.raises(TypeError, match=rf"^parameter 0.*: .*{name} is no geoopt.Manifold"):
        make([p])


def test_that_a_foreign_manifold_is_refused_wherever_it_comes_in() -> None:
    p, q = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    p.manifold = Ball()
    message = "Ball of the package 'tests' is no geoopt.Manifold; put the parameter"
    with pytest.raises(TypeError, match=rf"^parameter 0 \(shape \(2,\), PoincareBall\): {message}"):
        Product([q], manifolds=[Ball()])
    for call in (lambda: geometry_of(Ball()), lambda: rsam.geometry.is_plain(p), lambda: rsam.geometry.manifold_of(p)):
        with pytest.raises(TypeError, match=rf"^{message}"):
            call()
    space = Product([q])
    q.manifold = Ball()  # after the optimizer was made
    with pytest.raises(TypeError, match=message):
        space.update()
    optimizer = rsam.optim.RiemannianSGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(TypeError, match=message):
        optimizer.add_param_group({"params": [p]})
    assert len(optimizer.param_groups) == 1


def test_that_no_manifold_is_plain() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    p.manifold = None
    assert rsam.geometry.is_plain(p)
    assert Product([p]).retract([p], [p])[0].tolist() == [2, 2]
