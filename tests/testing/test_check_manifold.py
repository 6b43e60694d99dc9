"""That check_manifold passes right manifolds, and names and shrinks the errors of others."""

import traceback
from collections.abc import Callable

import geoopt
import pytest
import torch
from torch import Tensor

from rsam.geometry import Geometry, geometry_of
from rsam.testing import NativeGeometry, PropertyError, check_manifold, point_from_array, properties


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
        axis = torch.nn.functional.normalize(super().proju(x, torch.eye(3, dtype=x.dtype)[2]), dim=-1)
        return super().proju(x, u) - (axis * u).sum(-1, keepdim=True) * axis


class TakesCoordinatesForComponents(Circle):
    def component_inner(self, x: Tensor, u: Tensor, v: Tensor | None = None) -> Tensor:
        return u * (u if v is None else v)


def test_that_a_users_own_right_manifold_passes() -> None:
    report = check_manifold(Circle(), (3,))
    assert "the riemannian gradient represents the euclidean one" in report.checked
    # properties that need an exponential, a logarithm or a registered geometry
    assert report.skipped == (
        "the retraction agrees with the geodesic",
        "a geodesic keeps its speed",
        "geodesics cross spheres at right angles",
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


def test_that_components_of_a_users_manifold_that_are_no_tangents_are_found() -> None:
    with pytest.raises(PropertyError, match="not true that scaling components keeps tangents"):
        check_manifold(TakesCoordinatesForComponents(), (3,), properties=[properties.scaling_components_keeps_tangents])


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


class WithAllMethods(Circle):
    """Circle with right methods that rsam itself does not call."""

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return geometry_of(geoopt.Sphere()).exponential(x, u)

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        return geometry_of(geoopt.Sphere()).logarithm(x, y).norm(dim=-1, keepdim=keepdim)

    def random(self, *size: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
        return self.projx(torch.randn(*size, dtype=dtype, device=device))

    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        y = self.retr(x, u)
        return y, self.transp(x, y, v)


def _with(**methods: object) -> Circle:
    return type("Faulty", (WithAllMethods,), methods)()


def test_that_methods_that_rsam_does_not_call_are_checked_too() -> None:
    numbers = torch.get_rng_state()
    checked = check_manifold(WithAllMethods(), (2, 3), max_examples=5).checked
    assert {
        "random points are on the manifold",
        "the distance along a geodesic is its length",
        "steps with transport agree with their parts",
    } <= set(checked)
    assert torch.equal(torch.get_rng_state(), numbers)


SHAPES = properties.there_is_one_inner_product_per_point
RANDOM = properties.random_points_are_on_the_manifold
DISTANCE = properties.the_distance_along_a_geodesic_is_its_length
TOGETHER = properties.steps_with_transport_agree_with_their_parts
PURE = properties.arguments_are_not_written_to


def _carries_in_place(self: Circle, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    v -= (y * v).sum(-1, keepdim=True) * y
    return v


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(
    ("check", "methods", "message"),
    [
        (SHAPES, {"ndim": 0}, r"inner\(\.\.\., keepdim=False\) has shape \(\) for x of shape \(2,\), expected \(2,\)"),
        (
            SHAPES,
            {"inner": lambda self, x, u, v=None, *, keepdim=False: Circle.inner(self, x, u, v)},
            r"inner\(\.\.\., keepdim=True\) has shape \(\) for x of shape \(2,\), expected \(1,\)",
        ),
        (
            SHAPES,
            {"norm": lambda self, x, u, *, keepdim=False: u.norm(dim=-1, keepdim=True)},
            r"norm\(\.\.\., keepdim=False\) has shape \(1,\) for x of shape \(2,\), expected \(\)",
        ),
        (
            SHAPES,
            {"dist": lambda self, x, y, *, keepdim=False: WithAllMethods.dist(self, x, y)},
            r"dist\(\.\.\., keepdim=True\) has shape \(\)",
        ),
        (
            DISTANCE,
            {"dist": lambda self, x, y, **_: WithAllMethods.dist(self, x, y) * (1 + (x - y).relu().sum(-1))},
            r"dist\(.*\)\^2 against <u, u>: got",
        ),
        (
            RANDOM,
            {"random": lambda self, *size, dtype=None, device=None: torch.randn(*size, dtype=dtype)},
            "the point that random makes is not on the manifold: the norm is not 1",
        ),
        (
            RANDOM,
            {"origin": lambda self, *size, dtype=None, device=None: torch.ones(*size).div(2**0.5)},
            r"origin\(\*\(2,\), dtype=torch.float64\) has shape \(2,\) and is torch.float32",
        ),
        (TOGETHER, {"retr_transp": lambda self, x, u, v: (self.retr(x, u), v)}, "retr_transp against transp_follow"),
        (TOGETHER, {"expmap_transp": lambda self, x, u, v: (self.retr(x, u), v)}, "expmap_transp against expmap"),
        (PURE, {"transp": _carries_in_place}, "transport changed its argument v to"),
    ],
)
def test_that_errors_of_shapes_and_of_methods_that_rsam_does_not_call_are_found(
    check: Callable[..., None], methods: dict[str, object], message: str
) -> None:
    check_manifold(WithAllMethods(), (2,), properties=[check], max_examples=3)
    with pytest.raises(PropertyError, match=message):
        check_manifold(_with(**methods), (2,), properties=[check], max_examples=10)


def test_that_a_report_opens_with_the_cause_and_simplifies_the_first_failures_only() -> None:
    halved = _with(proju=lambda self, x, u: u - (x * u).sum(-1, keepdim=True) / 2 * x)
    with pytest.raises(AssertionError, match="properties do not hold; correct the first, and check again") as caught:
        check_manifold(halved, (2,), max_examples=2)
    report = str(caught.value)
    assert report.splitlines()[1] == "not true that the projection is tangent"
    assert report.count("not true that") > report.count("simplest failing case") == 3
