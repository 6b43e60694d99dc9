"""That each property of manifolds can fail: of geometries with one error each, check_manifold finds that of each."""

import copy
import pickle
from collections.abc import Callable

import geoopt
import pytest
import torch
from torch import Tensor

from rsam.geometry import Geometry, geometry_of
from rsam.testing import NativeGeometry, PropertyError, check_manifold, properties, properties_of


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


def _turned(x: Tensor, u: Tensor) -> Tensor:
    """Turn a tangent around the point by its squared length."""
    angle = (u * u).sum(-1, keepdim=True)
    return angle.cos() * u + angle.sin() * torch.linalg.cross(x, u)


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
    P.there_is_one_inner_product_per_point: _mutant(inner=lambda self, x, u, v: u * v),
    P.the_metric_is_bilinear: _mutant(inner=lambda self, x, u, v: RightSphere.inner(self, x, u, v) ** 3),
    P.raising_undoes_lowering: _mutant(lower_index=lambda self, x, t: 2 * t),
    P.a_zero_step_goes_nowhere: _mutant(retract=lambda self, x, u: _unit(x + u + 1e-6)),
    P.a_step_stays_on_the_manifold: _mutant(retract=lambda self, x, u: x + u),
    P.steps_begin_along_their_tangent: _mutant(retract=lambda self, x, u: _unit(x + 1.00001 * u)),
    P.the_gradient_is_the_slope_along_a_step: _mutant(retract=lambda self, x, u: _unit(x + 2 * u)),
    P.the_retraction_agrees_with_the_geodesic: _mutant(
        retract=lambda self, x, u: _unit(x + u + (u * u).sum(-1, keepdim=True) * torch.eye(3)[0])
    ),
    P.a_geodesic_keeps_its_speed: _mutant(exponential=lambda self, x, u: _unit(x + u)),
    P.geodesics_cross_spheres_at_right_angles: _mutant(
        exponential=lambda self, x, u: RightSphere.exponential(self, x, _turned(x, u))
    ),
    P.scaling_components_keeps_tangents: _mutant(component_inner=lambda self, x, u: u * u),
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
# tested separately, in other modules
METHODS = {P.random_points_are_on_the_manifold, P.steps_with_transport_agree_with_their_parts}
RARE = {
    P.the_point_is_on_the_manifold,
    P.the_derivative_of_projecting_points_is_tangent,
    P.a_list_equals_its_members,
    *METHODS,
}


class OfAnotherMetric(type(geometry_of(geoopt.CanonicalStiefel()))):  # type: ignore[misc]
    """Canonical metric with geodesics of the Euclidean one, which keep their speed in both."""

    retraction_order = 1

    def exponential(self, x: Tensor, u: Tensor) -> Tensor:
        return geometry_of(geoopt.EuclideanStiefel()).exponential(x, u)


@pytest.mark.usefixtures("unshrunk")
def test_that_geodesics_of_another_metric_are_found() -> None:
    manifold = geoopt.CanonicalStiefel()
    options = {"geometry": OfAnotherMetric(manifold), "max_examples": 5}
    check_manifold(manifold, (3, 2), **options, properties=[P.a_geodesic_keeps_its_speed])
    with pytest.raises(PropertyError, match="not true that geodesics cross spheres at right angles"):
        check_manifold(manifold, (3, 2), **options, properties=[P.geodesics_cross_spheres_at_right_angles])


@pytest.mark.usefixtures("unshrunk")
def test_that_squares_of_components_that_lack_a_factor_are_found() -> None:
    wrong = _mutant(component_inner=lambda self, x, u: RightSphere.component_inner(self, x, u) / 4)
    with pytest.raises(PropertyError, match=r"squares of components reach .* for <u, u> = "):
        check_manifold(
            geoopt.Sphere(), (3,), geometry=wrong(geoopt.Sphere()), properties=[P.scaling_components_keeps_tangents]
        )


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(
    "check", [P.the_acceleration_is_that_of_the_geodesic, P.second_order_steps_agree_with_the_geodesic]
)
def test_that_second_derivatives_are_compared_in_single_precision_too(check: Callable[..., None]) -> None:
    """Before, the tolerance for rounding was larger than the acceleration."""
    straight = _mutant(acceleration=lambda self, x, v: torch.zeros_like(v))
    with pytest.raises(PropertyError, match="the acceleration"):
        check_manifold(
            geoopt.Sphere(), (3,), dtype=torch.float32, geometry=straight(geoopt.Sphere()), properties=[check]
        )


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


@pytest.mark.parametrize(
    "sent", [copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"]
)
def test_that_a_failure_can_be_sent_to_another_process(sent) -> None:
    error = sent(PropertyError("a step stays on the manifold", {"u": [0, 0.5]}, "not true that ..."))
    assert (error.property, error.case, str(error)) == (
        "a step stays on the manifold",
        {"u": [0, 0.5]},
        "not true that ...",
    )


def test_that_the_table_of_mutants_is_complete() -> None:
    unasked = {P.the_distance_along_a_geodesic_is_its_length, *METHODS}  # of users' methods, which rsam does not call
    assert set(MUTANTS) | RARE == set(properties_of(RightSphere(geoopt.Sphere()))) | unasked
    assert {check.__name__ for check in MUTANTS.keys() | RARE} == set(properties.__all__)
