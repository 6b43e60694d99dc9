"""That orthonormal tangent frames are smooth in the point, and right at exceptional points."""

from __future__ import annotations

import geoopt
import pytest
import scipy.stats
import torch
from torch import Tensor

from rsam import geometry
from rsam.geometry import geometry_of
from rsam.testing import point_from_array
from rsam.testing.points import ambient_dtype
from tests.geometry.cases import MANIFOLDS, Make


def _sample(manifold: geoopt.Manifold, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Make a point and a tangent by projections of fixed noise."""
    generator = torch.Generator().manual_seed(3)
    on = geometry_of(manifold)
    noise = 0.3 * torch.randn(2, *shape, dtype=ambient_dtype(manifold, torch.float64), generator=generator)
    inside = 1j * torch.eye(shape[-1]) if isinstance(manifold, geoopt.UpperHalf) else 0
    x = on.project_point(noise[0] + inside)
    return x, on.project(x, noise[1])


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=[name for name, _, _ in MANIFOLDS])
def test_that_frames_are_differentiable_in_the_point(name: str, make: Make, shape: tuple[int, ...]) -> None:
    manifold = make().double()
    on = geometry_of(manifold)
    x, u = _sample(manifold, shape)
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(on.coordinates_shape(x), dtype=torch.float64, generator=generator)
    a = torch.randn(x.shape, dtype=x.dtype, generator=generator)

    def component(t: Tensor) -> Tensor:
        # 0 t, since the frame of a flat space is constant
        return geometry.pairing([a], [on.from_coordinates(on.retract(x, t * u), z)]) + 0 * t

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(component(t), t)
    h = 1e-5  # the error h^2 and the rounding 1e-16 / h are both about 1e-10
    numeric = (component(t.detach() + h) - component(t.detach() - h)) / (2 * h)
    torch.testing.assert_close(slope, numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("manifold", [geoopt.EuclideanStiefel(), geometry.CanonicalStiefel()], ids=lambda m: m.name)
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_that_frames_are_orthonormal_at_signed_unit_vectors(manifold: geoopt.Manifold, signs: tuple[int, ...]) -> None:
    # a Householder reflection with the wrong sign would divide by zero here
    x = torch.eye(5, 3, dtype=torch.float64) * torch.tensor(signs)
    frame = torch.eye(9, dtype=torch.float64)
    v = geometry_of(manifold).from_coordinates(x.expand(9, 5, 3), frame)
    products = geometry_of(manifold).inner(x, v[:, None], v[None]).squeeze()
    torch.testing.assert_close(products, frame)


class Squashed(geoopt.Manifold):
    """Plane with lengths that depend on the point, a user's manifold without a geometry."""

    name, ndim, reversible = "Squashed", 1, False

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return ((1 + x**2) * u * (u if v is None else v)).sum(-1, keepdim=keepdim)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return u / (1 + x**2)

    projx = retr = expmap = transp = _check_point_on_manifold = _check_vector_on_tangent = proju  # not called


def test_that_a_users_manifold_has_a_frame_without_registering_one() -> None:
    x = torch.tensor([[1.0, 2.0], [0.0, 3.0]], dtype=torch.float64)
    z = torch.ones(2, 2, dtype=torch.float64)
    on = geometry_of(Squashed())
    torch.testing.assert_close(on.from_coordinates(x, z), 1 / (1 + x**2).sqrt())
    there = on.to_coordinates(x, x)
    torch.testing.assert_close(there.sort().values, (x / (1 + x**2).sqrt()).sort().values)  # in any order


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e3), (torch.float64, 1e7)], ids=str)
def test_that_no_direction_is_lost_where_the_metric_scales_coordinates_unequally(
    dtype: torch.dtype, far: float
) -> None:
    # squared lengths of unit vectors differ by a factor of 1e6, and 1e14
    x, on = torch.tensor([0.0, far, 1.0], dtype=dtype), geometry_of(Squashed())
    assert on.dimension(x) == 3
    frame = on.from_coordinates(x.expand(3, 3), torch.eye(3, dtype=dtype))
    products = on.inner(x, frame[:, None], frame[None]).squeeze(-1)
    torch.testing.assert_close(products, torch.eye(3, dtype=dtype))


def test_that_a_user_registers_a_frame_in_one_decorated_function() -> None:
    class Half(Squashed):
        pass

    @geometry.register(Half)
    def from_coordinates(manifold: geoopt.Manifold, x: Tensor, z: Tensor) -> Tensor:
        return z.flip(-1) / (1 + x**2).sqrt()

    x, z = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    on = geometry_of(Half())
    torch.testing.assert_close(on.from_coordinates(x, z), torch.tensor([[0.0, 0.2**0.5]]))
    there = on.to_coordinates(x, x)  # the transpose by differentiation
    torch.testing.assert_close(there, torch.tensor([[2 * 0.2**0.5, 0.5**0.5]]))


def test_that_coordinates_are_normal_numbers_or_signs_and_others_refused() -> None:
    points = [torch.zeros(1000), torch.zeros(3, dtype=torch.complex64)]
    space = geometry.Product(points)
    numbers = space.random_coordinates(points, generator=torch.Generator().manual_seed(0))[0]
    assert scipy.stats.kstest(numbers.numpy(), "norm").pvalue > 0.01
    signs, pairs = space.random_coordinates(points, distribution="rademacher")
    assert set(signs.tolist()) == {-1.0, 1.0} and pairs.shape == (3, 2)
    with pytest.raises(ValueError, match="'normal' or 'rademacher', got 'uniform'"):
        space.random_coordinates(points, distribution="uniform")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["inner", "egrad2rgrad", "proju"])
def test_that_an_override_on_the_hyperboloid_changes_nothing_else(method) -> None:
    class Doubled(geoopt.Lorentz):
        """Hyperboloid with one method's result doubled."""

    setattr(Doubled, method, lambda self, *args, **kwargs: 2 * getattr(geoopt.Lorentz, method)(self, *args, **kwargs))
    # a curvature in single precision must not lower the precision of the computation
    ours, plain = geometry_of(Doubled(2.0)), geometry_of(geoopt.Lorentz(torch.tensor(2.0, dtype=torch.float64)))
    x, c = point_from_array(plain.manifold, torch.randn(5, 3).double()), torch.randn(5, 3).double()
    u = plain.project(x, c)
    y = plain.exponential(x, u)
    results = {
        name: tuple(getattr(on, name)(*arguments) for on in (ours, plain))
        for name, arguments in {
            "inner": (x, u, u),
            "raise_index": (x, c),
            "project": (x, c),
            "restore_tangent": (x, u),
            "exponential": (x, u),
            "logarithm": (x, y),
            "carry": (x, y, u),
        }.items()
    }
    changed = {"inner": {"inner"}, "egrad2rgrad": {"raise_index"}, "proju": {"project", "restore_tangent"}}[method]
    for name, (actual, expected) in results.items():
        torch.testing.assert_close(actual, (2 if name in changed else 1) * expected, rtol=1e-12, atol=1e-12)


def test_that_an_overridden_step_has_nothing_of_the_closed_form_it_replaces() -> None:
    class Slow(geoopt.SphereExact):
        """Sphere whose steps are half as long as they should be."""

        def retr(self, x: Tensor, u: Tensor) -> Tensor:
            return self.projx(x + u / 2)

    sphere, slow = geometry_of(geoopt.SphereExact()), geometry_of(Slow())
    promises = ("retraction_order", "isometric", "may_fail", "momentum_transport")
    assert [getattr(sphere, name) for name in promises] == [2, True, False, "projection"]
    assert [getattr(slow, name) for name in promises] == [1, False, True, "as transport"]
    x, u = torch.tensor([0.6, 0.8]), torch.tensor([-0.4, 0.3])
    torch.testing.assert_close(slow.retract_transport(x, u, u)[0], geoopt.Sphere().projx(x + u / 2))

    class Fast(type(sphere)):  # type: ignore[misc]
        """Geometry whose steps are twice as long, registered or not."""

        def retract(self, x: Tensor, u: Tensor) -> Tensor:
            return self.exponential(x, 2 * u)

    fast = Fast(geoopt.SphereExact())
    assert fast.momentum_transport == "as transport"
    torch.testing.assert_close(fast.retract_transport(x, u, u)[0], sphere.exponential(x, 2 * u))


def test_that_a_sphere_with_a_projection_of_its_own_retracts_by_it() -> None:
    """As in geoopt, whose retraction is the projection of the sum; before, points left the part of the sphere."""

    class Orthant(geoopt.Sphere):
        """Part of the sphere with coordinates that are not negative."""

        def projx(self, x: Tensor) -> Tensor:
            return super().projx(x.clamp_min(0))

    manifold, x, u = Orthant(), torch.tensor([0.6, 0.8]), torch.tensor([-1.6, 1.2])
    end = torch.tensor([0.0, 1.0])
    on = geometry_of(manifold)
    torch.testing.assert_close(on.retract(x, u), end)
    for isometric in (False, True):
        torch.testing.assert_close(on.retract_transport(x, u / 2, u, 2.0, isometric)[0], end)


def test_that_only_operations_are_registered() -> None:
    with pytest.raises(TypeError, match="'retrac' is no operation of a geometry; name the function one of"):

        @geometry.register(Rough)
        def retrac(manifold: geoopt.Manifold, x: Tensor, u: Tensor) -> Tensor:
            return x


def test_that_an_overridden_projection_decides_the_frame() -> None:
    class Held(geoopt.Sphere):
        """Sphere with a fixed last coordinate."""

        def proju(self, x: Tensor, u: Tensor) -> Tensor:
            u = super().proju(x, u * torch.tensor([1.0, 1.0, 1.0, 0.0]))
            return u * torch.tensor([1.0, 1.0, 1.0, 0.0])

    x = torch.tensor([0.6, 0.8, 0.0, 0.0])
    on = geometry_of(Held())
    shape = on.coordinates_shape(x)
    assert shape == (2,) and on.from_coordinates(x, torch.ones(shape))[3] == 0


@pytest.mark.parametrize(
    ("manifold", "point"),
    [
        (geoopt.Sphere(), (3,)),
        (geoopt.EuclideanStiefel(), (3, 2)),
        (geoopt.SymmetricPositiveDefinite(), (3, 3)),
        (geoopt.PoincareBall(), (2,)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_that_empty_batches_have_empty_tangents(manifold: geoopt.Manifold, point: tuple[int, ...]) -> None:
    assert geometry_of(manifold).random_tangent(torch.zeros(0, *point)).shape == (0, *point)


class Rough(geoopt.Sphere):
    """Sphere with an exponential by a norm, whose derivative torch sets to zero at zero."""

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        n = u.norm(dim=-1, keepdim=True)
        return x * n.cos() + u * torch.where(n > 0, n.sin() / n, 1.0)


def test_that_an_exponential_that_is_not_smooth_is_found_out() -> None:
    x, v = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.3, 0.4])
    with pytest.raises(
        geometry.UnsupportedOperation, match=r"Rough has no acceleration: .*norm.*@rsam.geometry.register"
    ):
        geometry_of(Rough()).acceleration(x, v)
