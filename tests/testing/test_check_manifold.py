"""That check_manifold passes right manifolds, and names and shrinks the errors of others."""

import traceback
from collections.abc import Callable

import geoopt
import pytest
import torch
from torch import Tensor

from rsam.geometry import Geometry
from rsam.testing import NativeGeometry, PropertyError, check_manifold, point_from_array, properties, properties_of


class Circle(geoopt.Manifold):
    """User's correct manifold, unknown to rsam."""

    name = "Circle"
    ndim = 1
    reversible = False

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return (u * (u if v is None else v)).sum(-1, keepdim=keepdim)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u - (x * u).sum(-1, keepdim=True) * x

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return self.proju(x, u)

    def projx(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        return self.projx(x + u)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        raise NotImplementedError

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return self.proju(y, v)

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        ok = bool(((x.norm(dim=-1) - 1).abs() <= atol).all())
        return ok, None if ok else "the norm is not 1"

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        ok = bool(((x * u).sum(-1).abs() <= atol).all())
        return ok, None if ok else "it is not orthogonal to the point"


class ForgetsToNormalise(Circle):
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u


BY_PROJX = "points were made by projx of drawn arrays; if they are poor, see rsam.testing.point_from_array for others"


class ForgetsToProject(Circle):
    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return u


class LosesAnAxis(Circle):
    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        axis = _unit(super().proju(x, torch.eye(3, dtype=x.dtype)[2])).nan_to_num()
        return super().proju(x, u) - (axis * u).sum(-1, keepdim=True) * axis


def test_that_a_users_own_right_manifold_passes() -> None:
    report = check_manifold(Circle(), (3,))
    assert "the riemannian gradient represents the euclidean one" in report.checked
    # properties that need an exponential, a logarithm or a registered geometry
    assert report.skipped == (
        "the retraction agrees with the geodesic",
        "a geodesic keeps its speed",
        "the logarithm undoes the exponential",
        "the acceleration is that of the geodesic",
        "the connection is half the slope of the acceleration",
        "second order steps agree with the geodesic",
    )


def test_that_a_retraction_that_does_not_normalise_is_shown_at_its_simplest() -> None:
    with pytest.raises(PropertyError) as caught:
        check_manifold(ForgetsToNormalise(), (2,), properties=[properties.a_step_stays_on_the_manifold])
    assert caught.value.property == "a step stays on the manifold"
    assert str(caught.value).splitlines() == [
        "not true that a step stays on the manifold",
        "  the end of the step is not on the manifold: the norm is not 1; it is [1.0, 0.5]",
        "  simplest failing case:",
        "    x = [1, 0]",
        "    u = [0, 0.5]",
        "    exact = False",
        BY_PROJX,
    ]


def test_that_a_gradient_that_is_not_projected_is_shown_at_its_simplest() -> None:
    with pytest.raises(PropertyError) as caught:
        check_manifold(ForgetsToProject(), (2,))
    assert caught.value.property == "the riemannian gradient is tangent"
    assert caught.value.case["x"].tolist() == [1, 0]
    assert caught.value.case["a"].tolist() == [1, 0]


def test_that_a_direction_that_no_tangent_has_is_missed_by_one_property_only() -> None:
    with pytest.raises(PropertyError, match="not true that the derivative of projecting points is tangent"):
        check_manifold(LosesAnAxis(), (3,))


def test_that_all_failures_are_reported_at_once() -> None:
    with pytest.raises(AssertionError, match=r"Circle, shape \(2,\): \d properties do not hold") as caught:
        check_manifold(ForgetsToNormalise(), (2,))
    for name in ("a step stays on the manifold", "a transported tangent is tangent"):
        assert f"not true that {name}" in str(caught.value)
    assert str(caught.value).splitlines()[-1] == BY_PROJX


def test_that_points_made_by_a_rule_for_the_manifold_are_not_blamed() -> None:
    class Made(ForgetsToNormalise):
        pass

    class Flat(geoopt.Sphere):
        def retr(self, x: Tensor, u: Tensor) -> Tensor:
            return x + u

    point_from_array.register(Made, lambda manifold, a: point_from_array(geoopt.Sphere(), a))
    for manifold in (Made(), Flat()):
        with pytest.raises(PropertyError) as caught:
            check_manifold(manifold, (2,), properties=[properties.a_step_stays_on_the_manifold])
        assert str(caught.value).splitlines()[-1] == "    exact = False"


def test_that_exceptions_are_failures() -> None:
    def it_divides_by_zero(geometry: Geometry, x: Tensor) -> None:
        1 / 0  # noqa: B018

    with pytest.raises(PropertyError, match=r"not true that it divides by zero\n  raises ZeroDivisionError"):
        check_manifold(Circle(), (2,), properties=[it_divides_by_zero])


class MultipliesWrongShapes(Circle):
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        return self.helper(x, u)

    def helper(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.einsum("ij,j->i", x, u)  # whose frame in torch/functional.py says nothing


PLACE = f"test_check_manifold.py:{MultipliesWrongShapes.helper.__code__.co_firstlineno + 1}"


def test_that_an_exception_in_a_method_is_the_cause_of_the_failure_with_its_traceback() -> None:
    with pytest.raises(PropertyError) as caught:
        check_manifold(MultipliesWrongShapes(), (2,), properties=[properties.a_step_stays_on_the_manifold])
    cause = caught.value.__cause__
    assert isinstance(cause, RuntimeError)
    assert [f.name for f in traceback.extract_tb(cause.__traceback__)][-3:] == ["retr", "helper", "einsum"]
    lines = str(caught.value).splitlines()
    assert lines[1].startswith("  raises RuntimeError: einsum()") and lines[2] == f"  at {PLACE}"


def test_that_each_of_several_failures_says_where_its_exception_was_raised() -> None:
    with pytest.raises(AssertionError) as caught:
        check_manifold(MultipliesWrongShapes(), (2,), max_examples=2)
    assert str(caught.value).count("not true that") == str(caught.value).count(f"\n  at {PLACE}\n") > 3


def test_that_an_assertion_without_a_message_is_shown_with_its_place() -> None:
    class Asserts(Circle):
        def retr(self, x: Tensor, u: Tensor) -> Tensor:
            raise AssertionError

    with pytest.raises(PropertyError, match=r"\n  raises AssertionError\n  at test_check_manifold.py:\d+\n") as caught:
        check_manifold(Asserts(), (2,), properties=[properties.a_step_stays_on_the_manifold])
    assert isinstance(caught.value.__cause__, AssertionError)


def test_that_a_law_that_does_not_hold_has_no_cause() -> None:
    with pytest.raises(PropertyError) as caught:
        check_manifold(ForgetsToNormalise(), (2,), properties=[properties.a_step_stays_on_the_manifold])
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_that_no_case_is_drawn_in_vain_once_every_property_has_failed() -> None:
    drawn = []

    class Counts(Circle):
        def projx(self, x: Tensor) -> Tensor:
            drawn.append(x)
            return super().projx(x)

    def it_never_holds(geometry: Geometry, x: Tensor) -> None:
        raise AssertionError

    with pytest.raises(PropertyError):
        check_manifold(Counts(), (2,), properties=[it_never_holds], max_examples=500)
    assert len(drawn) < 100  # of which most serve to find the simplest


def test_that_properties_may_be_left_out_and_unknown_arguments_are_refused() -> None:
    def unknown(geometry: Geometry, z: Tensor) -> None: ...

    check_manifold(ForgetsToProject(), (2,), skip=[properties.the_riemannian_gradient_is_tangent])
    with pytest.raises(TypeError, match="takes 'z'"):
        check_manifold(Circle(), (2,), properties=[unknown])


def test_that_a_manifold_of_another_precision_is_copied() -> None:
    manifold = geoopt.Lorentz()
    check_manifold(manifold, (3,), max_examples=2, properties=[properties.a_zero_step_goes_nowhere])
    assert manifold.dtype == torch.float32


class InSinglePrecision(Circle):
    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return super().inner(x, u, v, keepdim=keepdim).float()


class InDoublePrecision(Circle):
    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        return super().retr(x.double(), u.double())


@pytest.mark.parametrize(
    ("manifold", "dtype", "other", "check"),
    [
        (
            InSinglePrecision(),
            torch.float64,
            "float32",
            properties.the_riemannian_gradient_represents_the_euclidean_one,
        ),
        (InDoublePrecision(), torch.float32, "float64", properties.a_zero_step_goes_nowhere),
    ],
)
def test_that_results_in_another_precision_are_found(
    manifold: Circle, dtype: torch.dtype, other: str, check: Callable[..., None]
) -> None:
    with pytest.raises(PropertyError, match=rf"torch\.{other}, expected {dtype}"):
        check_manifold(manifold, (2,), dtype=dtype, properties=[check], max_examples=5)


class CarriesNothing(Circle):
    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        return self.retr(x, u), v


def test_that_native_methods_include_the_step_with_its_transport() -> None:
    manifold, check = CarriesNothing(), properties.momentum_that_was_carried_is_tangent
    with pytest.raises(PropertyError, match="the carried momentum is not tangent"):
        check_manifold(manifold, (2,), geometry=NativeGeometry(manifold), properties=[check], max_examples=5)


class ClampsTheAngle(Circle):
    """Circle whose exponential has no second derivative at zero, where that of a clamped number is zero."""

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        angle = (u * u).sum(-1, keepdim=True).clamp_min(1e-30).sqrt()
        return angle.cos() * x + angle.sin() / angle * u


def test_that_a_property_that_holds_of_zero_tangents_only_is_not_called_checked() -> None:
    check = properties.the_acceleration_is_that_of_the_geodesic
    report = check_manifold(ClampsTheAngle(), (2,), properties=[check], max_examples=5)
    assert report.skipped == ("the acceleration is that of the geodesic",)


# -- that each property can fail ----------------------------------------------------------------------------------


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


class RightSphere(NativeGeometry):
    """geoopt's sphere with a smooth exponential, a parallel transport and random tangents."""

    retraction_order = 2
    isometric = True

    def carry(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return v - (y * v).sum(-1, keepdim=True) / (1 + (x * y).sum(-1, keepdim=True)) * (x + y)

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        angle2 = (u * u).sum(-1, keepdim=True)
        angle = torch.where(angle2 > 0, angle2, 1).sqrt()
        cos = torch.where(angle2 > 0, angle.cos(), 1 - angle2 / 2)
        return _unit(cos * x + torch.where(angle2 > 0, angle.sin() / angle, 1 - angle2 / 6) * u)

    def dimension(self, x: Tensor) -> int:
        return x.numel() // x.shape[-1] * (x.shape[-1] - 1)

    def random_tangent(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.project(x, torch.randn(x.shape, dtype=x.dtype, generator=generator))


def _mutant(**methods: object) -> type[RightSphere]:
    return type("Mutant", (RightSphere,), methods)


Step = Callable[[RightSphere, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _step_mutant(step: Step) -> type[RightSphere]:
    """Make a geometry with this step and transport, for every step size, isometric or not."""
    return _mutant(retract_transport=lambda self, x, u, v, t=1.0, isometric=False: step(self, x, t * u, v))


def _mistakes_the_step(
    self: RightSphere, x: Tensor, u: Tensor, v: Tensor, t: float | Tensor = 1.0, isometric: bool = False
) -> tuple[Tensor, Tensor]:
    """Carry the scaled step instead of the step."""
    return Geometry.retract_transport(self, x, u, t * u if v is u else v, t)


P = properties
MUTANTS = {
    P.projecting_a_point_moves_it_nowhere: _mutant(project_point=lambda self, x: -x),
    P.the_projection_is_tangent: _mutant(project=lambda self, x, u: u),
    P.the_projection_is_idempotent: _mutant(project=lambda self, x, u: 2 * RightSphere.project(self, x, u)),
    P.the_projection_fixes_tangents: _mutant(project=lambda self, x, u: -RightSphere.project(self, x, u)),
    P.the_metric_is_symmetric_and_positive: _mutant(
        inner=lambda self, x, u, v: RightSphere.inner(self, x, u, v) + u[..., 0] * v[..., -1]
    ),
    P.the_riemannian_gradient_is_tangent: _mutant(raise_index=lambda self, x, g: g),
    P.the_riemannian_gradient_represents_the_euclidean_one: _mutant(
        raise_index=lambda self, x, g: 2 * RightSphere.project(self, x, g)
    ),
    P.raising_undoes_lowering: _mutant(lower_index=lambda self, x, t: 2 * t),
    P.a_zero_step_goes_nowhere: _mutant(retract=lambda self, x, u: _unit(x + u + 1e-6)),
    P.a_step_stays_on_the_manifold: _mutant(retract=lambda self, x, u: x + u),
    P.steps_begin_along_their_tangent: _mutant(retract=lambda self, x, u: _unit(x + 1.00001 * u)),
    P.the_gradient_is_the_slope_along_a_step: _mutant(retract=lambda self, x, u: _unit(x + 2 * u)),
    P.the_retraction_agrees_with_the_geodesic: _mutant(
        retract=lambda self, x, u: _unit(x + u + (u * u).sum(-1, keepdim=True) * torch.eye(3)[0])
    ),
    P.a_geodesic_keeps_its_speed: _mutant(exponential=lambda self, x, u: _unit(x + u)),
    P.transport_along_nothing_is_the_identity: _mutant(carry=lambda self, x, y, v: -v),
    P.a_transported_tangent_is_tangent: _mutant(carry=lambda self, x, y, v: v),
    P.transport_is_linear: _mutant(carry=lambda self, x, y, v: RightSphere.carry(self, x, y, v) * v.norm()),
    P.transport_is_isometric: _mutant(carry=lambda self, x, y, v: self.project(y, v)),
    P.transport_back_undoes_transport: _mutant(transport_back=lambda self, x, u, y, v, exact=False: self.project(x, v)),
    P.momentum_is_carried_to_the_end_of_the_retraction: _step_mutant(lambda g, x, u, v: (g.exponential(x, u), v)),
    P.momentum_along_nothing_stays: _step_mutant(lambda g, x, u, v: (g.retract(x, u), -v)),
    P.momentum_that_was_carried_is_tangent: _step_mutant(lambda g, x, u, v: (g.retract(x, u), v)),
    P.momentum_is_carried_linearly: _step_mutant(lambda g, x, u, v: (g.retract(x, u), v * v.norm())),
    P.momentum_that_is_the_step_is_carried_as_any_other: _mutant(retract_transport=_mistakes_the_step),
    P.step_sizes_scale_the_step: _mutant(
        retract_transport=lambda self, x, u, v, t=1.0, **_: Geometry.retract_transport(self, x, u, v, abs(t))
    ),
    P.momentum_is_carried_isometrically_if_asked: _step_mutant(
        lambda g, x, u, v: (g.retract(x, u), g.project(g.retract(x, u), v))
    ),
    P.the_squared_norm_is_an_inner_product: _mutant(squared_norm=lambda self, x, u: (u * u).sum() / 2),
    P.the_pullback_is_the_adjoint_of_the_derivative: _mutant(pullback=lambda self, x, u, c, exact=False: c),
    P.steps_have_finite_derivatives_at_zero: _mutant(exponential=lambda self, x, u: self.manifold.expmap(x, u)),
    P.the_acceleration_is_that_of_the_geodesic: _mutant(acceleration=lambda self, x, v: torch.zeros_like(v)),
    P.the_connection_is_half_the_slope_of_the_acceleration: _mutant(
        connection=lambda self, x, c, v: 2 * RightSphere.connection(self, x, c, v)
    ),
    P.second_order_steps_agree_with_the_geodesic: _mutant(
        retract_second_order=lambda self, x, u: _unit(x + u + (u * u).sum(-1, keepdim=True) * torch.eye(3)[0])
    ),
    P.frames_are_orthonormal: _mutant(
        from_coordinates=lambda self, x, z: 1.001 * RightSphere.from_coordinates(self, x, z)
    ),
    P.random_tangents_are_isotropic: _mutant(
        random_tangent=lambda self, x, generator=None: 1.2 * RightSphere.random_tangent(self, x, generator)
    ),
    P.arguments_are_not_written_to: _mutant(raise_index=lambda self, x, g: self.project(x, g.mul_(2)) / 2),
    P.a_batch_equals_its_members: _mutant(retract=lambda self, x, u: (x + u) / (x + u).norm()),
    # geoopt's own distance and logarithm of the sphere are wrong, but rsam does not use them
    P.the_logarithm_undoes_the_exponential: RightSphere,
    P.the_distance_along_a_geodesic_is_its_length: RightSphere,
}
# tested separately, in this and other modules
RARE = {P.the_point_is_on_the_manifold, P.the_derivative_of_projecting_points_is_tangent, P.a_list_equals_its_members}


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("check", MUTANTS, ids=lambda check: check.__name__)
def test_that_each_property_can_fail(check: Callable[..., None]) -> None:
    manifold = geoopt.Sphere()
    right = RightSphere(manifold)
    if MUTANTS[check] is not RightSphere:
        assert not check_manifold(manifold, (3,), geometry=right, properties=[check], max_examples=5).skipped
    with pytest.raises(PropertyError) as caught:
        # the drawn cases depend on the loaded modules, since hypothesis collects their constants
        check_manifold(manifold, (3,), geometry=MUTANTS[check](manifold), properties=[check], max_examples=200)
    assert caught.value.property == check.__name__.replace("_", " ")


def test_that_the_table_of_mutants_is_complete() -> None:
    unasked = {P.the_distance_along_a_geodesic_is_its_length}  # it tests geoopt's dist, which rsam does not use
    assert set(MUTANTS) | RARE == set(properties_of(RightSphere(geoopt.Sphere()))) | unasked
    assert {check.__name__ for check in MUTANTS.keys() | RARE} == set(properties.__all__)
