"""Check a manifold in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import geoopt
import torch
from hypothesis import strategies as st

from rsam.geometry import Geometry, geometry_of
from rsam.testing import properties as all_properties
from rsam.testing.arguments import checked_functions, checked_shape, in_precision
from rsam.testing.points import ambient_dtype, remarks_on_points
from rsam.testing.properties.asserts import is_own
from rsam.testing.properties.metric import RANDOM
from rsam.testing.properties.transport import TOGETHER
from rsam.testing.running import Check, Report, run_checks
from rsam.testing.strategies import Shape, arrays, points, step_sizes, tangents

__all__ = ["NativeGeometry", "check_manifold", "properties_of"]

Property = Callable[..., None]

_ARGUMENTS = ("x", "y", "u", "v", "w", "a", "t", "exact")


# Checked where neither geoopt nor rsam defines the methods.
_OF_METHODS: dict[Property, Sequence[str]] = {
    all_properties.random_points_are_on_the_manifold: RANDOM,
    all_properties.the_distance_along_a_geodesic_is_its_length: ("dist",),
    all_properties.steps_with_transport_agree_with_their_parts: [
        name for together, (_, carry) in TOGETHER.items() for name in (together, carry)
    ],
}


class NativeGeometry(Geometry):
    """Geometry of geoopt's own methods, as geoopt's optimizers call them; pass it as ``geometry`` to test these.

    The base class hides some defects of geoopt from callers; this one does not.

    Parameters
    ----------
    manifold : geoopt.Manifold
        The manifold.

    Examples
    --------
    In geoopt 0.5.1 the canonical retraction sets off twice as fast as it should, here along a rotation:

    >>> import geoopt, torch, rsam.testing
    >>> x, u = torch.eye(2), torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> manifold = geoopt.CanonicalStiefel()
    >>> native, mended = rsam.testing.NativeGeometry(manifold), rsam.geometry.geometry_of(manifold)
    >>> [round(geometry.retract(x, u / 1000)[1, 0].item(), 5) for geometry in (native, mended)]
    [0.002, 0.001]
    """

    def inner(self, x: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return self.manifold.inner(x, u, v)

    def component_inner(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return self.manifold.component_inner(x, u)

    def point_inner(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return super().inner(x, u, u)  # geoopt has no squared norm

    def raise_index(self, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return self.manifold.egrad2rgrad(x, g)

    def retract_transport(
        self,
        x: torch.Tensor,
        u: torch.Tensor,
        v: torch.Tensor,
        t: float | torch.Tensor = 1.0,
        isometric: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y, carried = self.manifold.retr_transp(x, t * u, v)
        return y, carried


def properties_of(geometry: Geometry) -> list[Property]:
    """List the properties that a geometry ought to have, simplest first.

    Parameters
    ----------
    geometry : rsam.geometry.Geometry
        The geometry; one that is isometric has three more. Methods of a manifold of your own that rsam does not call
        (``random``, ``dist``, ``retr_transp``) have one each.

    Returns
    -------
    list of callable
        Functions of :mod:`rsam.testing.properties`, to pass on to :func:`check_manifold`.

    Examples
    --------
    >>> import geoopt, rsam
    >>> listed = rsam.testing.properties_of(rsam.geometry.geometry_of(geoopt.Sphere()))
    >>> listed[0].__name__, listed[-3].__name__
    ('the_point_is_on_the_manifold', 'transport_is_isometric')
    """
    p = all_properties
    listed: list[Property] = [
        p.the_point_is_on_the_manifold,
        p.there_is_one_inner_product_per_point,
        p.arguments_are_not_written_to,
        p.projecting_a_point_moves_it_nowhere,
        p.the_projection_is_tangent,
        p.the_projection_is_idempotent,
        p.the_projection_fixes_tangents,
        p.the_derivative_of_projecting_points_is_tangent,
        p.the_metric_is_symmetric_and_positive,
        p.the_metric_is_bilinear,
        p.the_squared_norm_is_an_inner_product,
        p.scaling_components_keeps_tangents,
        p.the_riemannian_gradient_is_tangent,
        p.the_riemannian_gradient_represents_the_euclidean_one,
        p.raising_undoes_lowering,
        p.a_zero_step_goes_nowhere,
        p.a_step_stays_on_the_manifold,
        p.steps_begin_along_their_tangent,
        p.the_gradient_is_the_slope_along_a_step,
        p.the_retraction_agrees_with_the_geodesic,
        p.a_geodesic_keeps_its_speed,
        p.geodesics_cross_spheres_at_right_angles,
        p.the_logarithm_undoes_the_exponential,
        p.transport_along_nothing_is_the_identity,
        p.a_transported_tangent_is_tangent,
        p.transport_is_linear,
        p.momentum_is_carried_to_the_end_of_the_retraction,
        p.momentum_along_nothing_stays,
        p.momentum_that_was_carried_is_tangent,
        p.momentum_is_carried_linearly,
        p.momentum_that_is_the_step_is_carried_as_any_other,
        p.step_sizes_scale_the_step,
        p.the_pullback_is_the_adjoint_of_the_derivative,
        p.steps_have_finite_derivatives_at_zero,
        p.the_acceleration_is_that_of_the_geodesic,
        p.the_connection_is_half_the_slope_of_the_acceleration,
        p.second_order_steps_agree_with_the_geodesic,
        p.frames_are_orthonormal,
        p.random_tangents_are_isotropic,
        p.a_batch_equals_its_members,
        p.a_list_equals_its_members,
    ]
    for function, methods in _OF_METHODS.items():
        if any(is_own(geometry.manifold, method) for method in methods):
            listed.append(function)
    if geometry.isometric:
        listed += [
            p.transport_is_isometric,
            p.transport_back_undoes_transport,
            p.momentum_is_carried_isometrically_if_asked,
        ]
    return listed


def check_manifold(
    manifold: geoopt.Manifold,
    shape: Shape,
    *,
    dtype: torch.dtype = torch.float64,
    max_examples: int = 25,
    geometry: Geometry | None = None,
    properties: Iterable[Property] | None = None,
    skip: Sequence[Property] = (),
) -> Report:
    """Check that a manifold has every property that optimizers and curvature rely on.

    Parameters
    ----------
    manifold : geoopt.Manifold
        A manifold of geoopt or your own. Operations that it does not have are not checked.
    shape : tuple of int
        Shape of the points to try, ``(*batch, *point)``; small points find as many errors as large ones. Tangents are
        at most 1/2 long in the metric, so that an error of longer steps only is not found.
    dtype : torch.dtype
        Precision; a manifold with a curvature of another precision is converted to a copy in this one.
    max_examples : int
        Number of cases to try for each property.
    geometry : rsam.geometry.Geometry, optional
        Geometry to check instead of the registered one: ``NativeGeometry(manifold)`` checks the manifold's own methods.
    properties : iterable of callable, optional
        Properties to check instead of ``properties_of(geometry)``: functions of a geometry and of any arguments with
        names from :mod:`rsam.testing.properties`.
    skip : sequence of callable
        Properties to leave out.

    Returns
    -------
    Report
        The properties that hold, and those that need a missing operation.

    Raises
    ------
    AssertionError
        If any property does not hold; shows the simplest case found for each.
    TypeError
        If an argument has another type, or a property takes an argument of another name.
    ValueError
        If points of the manifold cannot have this shape, or another argument is out of range.

    Examples
    --------
    >>> import geoopt, rsam.testing
    >>> report = rsam.testing.check_manifold(geoopt.PoincareBall(), (2,), max_examples=5)
    >>> report.skipped
    ()
    >>> class Flat(geoopt.Sphere):
    ...     def retr(self, x, u):
    ...         return x + u
    >>> rsam.testing.check_manifold(Flat(), (2,), properties=[rsam.testing.properties.a_step_stays_on_the_manifold])
    Traceback (most recent call last):
      ...
    rsam.errors.PropertyError: not true that a step stays on the manifold
      the end of the step is not on the manifold: `norm(x) != 1` with ...; it is [1.0, 0.5]
      simplest failing case:
        x = [1, 0]
        u = [0, 0.5]
        exact = False
    """
    shape = checked_shape(manifold, shape, dtype, max_examples)
    if geometry is None:
        manifold = in_precision(manifold, dtype)
        geometry = geometry_of(manifold)
    elif not isinstance(geometry, Geometry):
        raise TypeError(f"geometry must be a Geometry, such as NativeGeometry(manifold), got {geometry!r}")
    where = "rsam.testing.properties"
    chosen = properties_of(geometry) if properties is None else checked_functions("properties", properties, where)
    left_out = checked_functions("skip", skip, where)
    checks = [Check(function, geometry) for function in chosen if function not in left_out]
    outcome = run_checks(checks, lambda names: _cases(names, manifold, shape, dtype), max_examples)
    outcome.raise_failures(f"{manifold.name}, shape {shape}", remarks_on_points(manifold))
    return outcome.report


def _cases(
    names: Sequence[str], manifold: geoopt.Manifold, shape: Shape, dtype: torch.dtype
) -> st.SearchStrategy[dict[str, Any]]:
    """Draw the named arguments of properties."""
    unknown = set(names) - set(_ARGUMENTS)
    if unknown:
        raise TypeError(f"a property takes {unknown.pop()!r}, which is not among {', '.join(_ARGUMENTS)}")

    @st.composite
    def cases(draw: st.DrawFn) -> dict[str, Any]:
        case: dict[str, Any] = {}
        for name in _ARGUMENTS:  # points before tangents at them
            if name not in names:
                continue
            if name in ("x", "y"):
                case[name] = draw(points(manifold, shape, dtype))
            elif name in ("u", "v", "w"):
                case[name] = draw(tangents(case["y" if name == "w" else "x"], manifold))
            elif name == "a":
                case[name] = draw(arrays(shape, ambient_dtype(manifold, dtype)))
            elif name == "t":
                case[name] = draw(step_sizes())
            elif name == "exact":
                case[name] = draw(st.booleans())
        return case

    return cases()
