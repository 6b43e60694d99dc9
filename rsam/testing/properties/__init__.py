"""Define properties that every manifold has, as functions that raise AssertionError if one does not hold.

:func:`rsam.testing.check_manifold` draws their arguments by name:

geometry : rsam.geometry.Geometry
    The geometry to check.
x, y : Tensor
    Points.
u, v, w : Tensor
    Tangents: of steps at ``x``, others at ``x``, others at ``y``.
a : Tensor
    Ambient array, or a covector at ``x``.
t : float
    Step size in (0, 1].
exact : bool
    Check the exponential instead of the retraction.

The properties follow Manopt's ``checkmanifold`` and ``checkretraction`` (Boumal et al. 2014) and the tests of
Manifolds.jl (Axen et al. 2023). Each raises NotImplementedError where the geometry lacks an operation, and can be
called by itself:

>>> import geoopt, torch, rsam
>>> class Flat(geoopt.Sphere):
...     def retr(self, x, u):
...         return x + u
>>> x, u = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.5])
>>> rsam.testing.properties.a_step_stays_on_the_manifold(rsam.geometry.geometry_of(Flat()), x, u, exact=True)
>>> rsam.testing.properties.a_step_stays_on_the_manifold(rsam.geometry.geometry_of(Flat()), x, u, exact=False)
Traceback (most recent call last):
  ...
AssertionError: the end of the step is not on the manifold: `norm(x) != 1` with ...; it is [1.0, 0.5]
"""

from typing import TYPE_CHECKING, Any

from rsam.removed import missing
from rsam.testing.properties.curves import (
    a_geodesic_keeps_its_speed,
    a_step_stays_on_the_manifold,
    a_zero_step_goes_nowhere,
    geodesics_cross_spheres_at_right_angles,
    steps_begin_along_their_tangent,
    the_distance_along_a_geodesic_is_its_length,
    the_gradient_is_the_slope_along_a_step,
    the_logarithm_undoes_the_exponential,
    the_retraction_agrees_with_the_geodesic,
)
from rsam.testing.properties.metric import (
    projecting_a_point_moves_it_nowhere,
    raising_undoes_lowering,
    random_points_are_on_the_manifold,
    scaling_components_keeps_tangents,
    the_derivative_of_projecting_points_is_tangent,
    the_metric_is_bilinear,
    the_metric_is_symmetric_and_positive,
    the_point_is_on_the_manifold,
    the_projection_fixes_tangents,
    the_projection_is_idempotent,
    the_projection_is_tangent,
    the_riemannian_gradient_is_tangent,
    the_riemannian_gradient_represents_the_euclidean_one,
    the_squared_norm_is_an_inner_product,
    there_is_one_inner_product_per_point,
)
from rsam.testing.properties.momentum import (
    momentum_along_nothing_stays,
    momentum_is_carried_isometrically_if_asked,
    momentum_is_carried_linearly,
    momentum_is_carried_to_the_end_of_the_retraction,
    momentum_that_is_the_step_is_carried_as_any_other,
    momentum_that_was_carried_is_tangent,
    step_sizes_scale_the_step,
)
from rsam.testing.properties.purity import (
    a_batch_equals_its_members,
    a_list_equals_its_members,
    arguments_are_not_written_to,
)
from rsam.testing.properties.second_order import (
    frames_are_orthonormal,
    random_tangents_are_isotropic,
    second_order_steps_agree_with_the_geodesic,
    steps_have_finite_derivatives_at_zero,
    the_acceleration_is_that_of_the_geodesic,
    the_connection_is_half_the_slope_of_the_acceleration,
)
from rsam.testing.properties.transport import (
    a_transported_tangent_is_tangent,
    steps_with_transport_agree_with_their_parts,
    the_pullback_is_the_adjoint_of_the_derivative,
    transport_along_nothing_is_the_identity,
    transport_back_undoes_transport,
    transport_is_isometric,
    transport_is_linear,
)

__all__ = [
    "a_batch_equals_its_members",
    "a_geodesic_keeps_its_speed",
    "a_list_equals_its_members",
    "a_step_stays_on_the_manifold",
    "a_transported_tangent_is_tangent",
    "a_zero_step_goes_nowhere",
    "arguments_are_not_written_to",
    "frames_are_orthonormal",
    "geodesics_cross_spheres_at_right_angles",
    "momentum_along_nothing_stays",
    "momentum_is_carried_isometrically_if_asked",
    "momentum_is_carried_linearly",
    "momentum_is_carried_to_the_end_of_the_retraction",
    "momentum_that_is_the_step_is_carried_as_any_other",
    "momentum_that_was_carried_is_tangent",
    "projecting_a_point_moves_it_nowhere",
    "raising_undoes_lowering",
    "random_points_are_on_the_manifold",
    "random_tangents_are_isotropic",
    "scaling_components_keeps_tangents",
    "second_order_steps_agree_with_the_geodesic",
    "step_sizes_scale_the_step",
    "steps_begin_along_their_tangent",
    "steps_have_finite_derivatives_at_zero",
    "steps_with_transport_agree_with_their_parts",
    "the_acceleration_is_that_of_the_geodesic",
    "the_connection_is_half_the_slope_of_the_acceleration",
    "the_derivative_of_projecting_points_is_tangent",
    "the_distance_along_a_geodesic_is_its_length",
    "the_gradient_is_the_slope_along_a_step",
    "the_logarithm_undoes_the_exponential",
    "the_metric_is_bilinear",
    "the_metric_is_symmetric_and_positive",
    "the_point_is_on_the_manifold",
    "the_projection_fixes_tangents",
    "the_projection_is_idempotent",
    "the_projection_is_tangent",
    "the_pullback_is_the_adjoint_of_the_derivative",
    "the_retraction_agrees_with_the_geodesic",
    "the_riemannian_gradient_is_tangent",
    "the_riemannian_gradient_represents_the_euclidean_one",
    "the_squared_norm_is_an_inner_product",
    "there_is_one_inner_product_per_point",
    "transport_along_nothing_is_the_identity",
    "transport_back_undoes_transport",
    "transport_is_isometric",
    "transport_is_linear",
]

if not TYPE_CHECKING:  # to which every name would seem to exist

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name)
