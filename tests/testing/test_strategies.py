"""That strategies shrink to readable points, come near the boundary, and can be extended."""

import math

import geoopt
import hypothesis
import pytest
import torch
from torch import Tensor

from rsam.geometry import Geometry, geometry_of, register
from rsam.testing import (
    PropertyError,
    check_manifold,
    point_from_array,
    points,
    properties,
    step_sizes,
    tangent_from_array,
    tangents,
)
from tests.geometry.cases import MANIFOLDS, Make

SETTINGS = hypothesis.settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),  # to explain a case would trace every line
    suppress_health_check=list(hypothesis.HealthCheck),
)

SIMPLEST = [
    (geoopt.Sphere(), (3,), [1, 0, 0]),
    (geoopt.CanonicalStiefel(), (3, 2), [[1, 0], [0, 1], [0, 0]]),
    (geoopt.PoincareBall(), (2,), [0, 0]),
    (geoopt.Lorentz().double(), (3,), [1, 0, 0]),
    (geoopt.SymmetricPositiveDefinite(), (2, 2), [[1, 0], [0, 1]]),
    (geoopt.BirkhoffPolytope(), (2, 2), [[0.5, 0.5], [0.5, 0.5]]),
    (geoopt.UpperHalf(), (1, 1), [[1j]]),
    (geoopt.BoundedDomain(), (1, 1), [[0j]]),
]


@pytest.mark.parametrize(("manifold", "shape", "expected"), SIMPLEST, ids=lambda value: getattr(value, "name", None))
def test_that_the_simplest_point_is_simple(manifold: geoopt.Manifold, shape: tuple[int, ...], expected: list) -> None:
    x = hypothesis.find(points(manifold, shape), lambda x: True, settings=SETTINGS)
    assert x.tolist() == expected


def test_that_the_simplest_tangent_is_zero_and_the_simplest_step_is_one() -> None:
    x = torch.tensor([0.6, 0.8], dtype=torch.float64)
    assert hypothesis.find(tangents(x, geoopt.Sphere()), lambda u: True, settings=SETTINGS).tolist() == [0, 0]
    assert hypothesis.find(step_sizes(), lambda t: True, settings=SETTINGS) == 1


def test_that_tangents_are_as_long_in_the_metric_as_their_arrays_up_to_the_longest() -> None:
    ball, x = geoopt.PoincareBall().double(), torch.tensor([0.5, 0.0], dtype=torch.float64)
    for size, options, length in ((0.3, {}, 0.3), (3.0, {}, 0.5), (3.0, {"longest": 2.0}, 2.0)):
        u = tangent_from_array(ball, x, size * torch.tensor([0.6, 0.8], dtype=torch.float64), **options)
        assert float(ball.norm(x, u)) == pytest.approx(length, rel=1e-12)
    any_ = hypothesis.settings(SETTINGS, phases=[hypothesis.Phase.generate])
    drawn = hypothesis.find(tangents(x, ball, longest=2.0), lambda u: bool(ball.norm(x, u) > 1.9), settings=any_)
    assert float(ball.norm(x, drawn)) <= 2 * (1 + 1e-12)


def _stretch(manifold: geoopt.Manifold, x: Tensor) -> float:
    """Return the largest ratio of metric to ambient length among the projected axes."""
    geometry = geometry_of(manifold)
    axes = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    tangent = geometry.project(x.expand_as(axes), axes)
    lengths = geometry.inner(x.expand_as(axes), tangent, tangent).flatten().abs().sqrt()
    return float((lengths / tangent.flatten(1).norm(dim=1).clamp_min(1e-9)).max())


@pytest.mark.parametrize(
    ("manifold", "shape", "least"),
    [
        (geoopt.PoincareBall().double(), (2,), 100),
        (geoopt.SymmetricPositiveDefinite(), (2, 2), 30),
        (geoopt.UpperHalf(), (2, 2), 30),
        (geoopt.BoundedDomain(), (2, 2), 50),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_that_points_reach_for_the_boundary(manifold: geoopt.Manifold, shape: tuple[int, ...], least: float) -> None:
    hypothesis.find(points(manifold, shape), lambda x: _stretch(manifold, x) > least, settings=SETTINGS)


def test_that_points_of_unbounded_manifolds_are_large() -> None:
    for manifold, shape in ((geoopt.Lorentz().double(), (3,)), (geoopt.Euclidean(1), (3,))):
        hypothesis.find(points(manifold, shape), lambda x: x.norm() > 50, settings=SETTINGS)


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=[name for name, _, _ in MANIFOLDS])
def test_that_any_array_makes_a_point(name: str, make: Make, shape: tuple[int, ...]) -> None:
    manifold = make().double()
    complex_ = isinstance(manifold, geoopt.UpperHalf | geoopt.BoundedDomain)
    dtype = torch.complex128 if complex_ else torch.float64
    anchor = torch.zeros(shape, dtype=dtype)
    anchor[..., 0] = -1  # cancels the first axis, to which arrays are added
    for array in (torch.zeros(shape, dtype=dtype), anchor, torch.full(shape, 64, dtype=dtype)):
        x = point_from_array(manifold, array)
        assert x.shape == shape and x.dtype == dtype
        assert manifold.check_point_on_manifold(x, atol=1e-7 * max(1.0, float(x.abs().max()) ** 2), rtol=1e-7)


class Ellipse(geoopt.Euclidean):
    """User's manifold with a registered rule for points and registered operations."""

    name = "Ellipse"

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        ok = bool((((x * torch.tensor([1.0, 2.0])) ** 2).sum(-1) - 1).abs().max() <= atol)
        return ok, None if ok else "not on the ellipse"


def test_that_points_of_ones_own_manifold_can_be_registered() -> None:
    only = [properties.the_point_is_on_the_manifold]
    with pytest.raises(PropertyError, match="the point is on the manifold"):
        check_manifold(Ellipse(1), (2,), properties=only)

    @point_from_array.register
    def _(manifold: Ellipse, a: Tensor) -> Tensor:
        angle = a.sum(-1)
        return torch.stack((angle.cos(), angle.sin() / 2), -1)

    assert check_manifold(Ellipse(1), (2,), properties=only).checked


class Unstackable(geoopt.Sphere):
    """Manifold with a registered retraction of the whole tensor, which claims that points may be stacked."""


@register(Unstackable)
class UnstackableGeometry(Geometry):
    def key(self) -> tuple[object, ...]:
        return (type(self.manifold),)

    def retract(self, x: Tensor, u: Tensor) -> Tensor:
        return (x + u) / (x + u).norm()


def test_that_a_list_that_does_not_stack_is_found() -> None:
    with pytest.raises(PropertyError, match="retract of a list against its members"):
        check_manifold(Unstackable(), (2,), properties=[properties.a_list_equals_its_members])


def test_that_step_sizes_have_all_magnitudes() -> None:
    smallest = hypothesis.find(step_sizes(), lambda t: t < 1e-4, settings=SETTINGS)
    assert math.log2(smallest).is_integer()
