"""Check retractions and exponentials."""

from __future__ import annotations

import torch
from torch import Tensor

from rsam.geometry import Geometry, pairing
from rsam.geometry.linalg import largest
from rsam.testing.comparison import assert_close, assert_order, tolerance
from rsam.testing.properties.asserts import assert_on_manifold, central_step, product, stretched

__all__ = [
    "a_geodesic_keeps_its_speed",
    "a_step_stays_on_the_manifold",
    "a_zero_step_goes_nowhere",
    "geodesics_cross_spheres_at_right_angles",
    "steps_begin_along_their_tangent",
    "the_distance_along_a_geodesic_is_its_length",
    "the_gradient_is_the_slope_along_a_step",
    "the_logarithm_undoes_the_exponential",
    "the_retraction_agrees_with_the_geodesic",
]


def a_step_stays_on_the_manifold(geometry: Geometry, x: Tensor, u: Tensor, exact: bool) -> None:
    """Raise unless the end of the retraction (the exponential if ``exact``) is on the manifold."""
    assert_on_manifold(geometry, geometry.curve(x, u, exact), "the end of the step")


def a_zero_step_goes_nowhere(geometry: Geometry, x: Tensor, exact: bool) -> None:
    """Raise unless ``R(x, 0) = x``."""
    assert_close(geometry.curve(x, torch.zeros_like(x), exact), x, "R(x, 0)")


def steps_begin_along_their_tangent(geometry: Geometry, x: Tensor, u: Tensor, exact: bool) -> None:
    """Raise unless the derivative of the step at zero is the identity, by a central difference."""
    h = central_step(x.dtype)
    u = stretched(geometry, x, u)
    difference = (geometry.curve(x, h * u, exact) - geometry.curve(x, -h * u, exact)) / (2 * h)
    # the error is h^2 times third derivatives, which are as large as those of a boost in units of the metric
    assert_close(difference, u, "D R_x(0)[u]", scale=largest(x) / h, slack=4)


def the_retraction_agrees_with_the_geodesic(geometry: Geometry, x: Tensor, u: Tensor) -> None:
    """Raise unless the retraction departs from the geodesic as ``t^2``, or ``t^3`` where it is of order 2."""
    u = stretched(geometry, x, u)

    def error(t: float) -> float:
        return largest(geometry.retract(x, t * u) - geometry.exponential(x, t * u))

    floor = 1000 * float(torch.finfo(x.dtype).eps) * max(largest(x), largest(u))
    assert_order(error, geometry.retraction_order + 1, "R(x, t u) - Exp(x, t u)", floor=floor)


def a_geodesic_keeps_its_speed(geometry: Geometry, x: Tensor, u: Tensor) -> None:
    """Raise unless the exponential ends as fast as it begins, by a central difference.

    This finds an exponential that is only a retraction of second order, which the other laws take for the geodesic.
    """
    h = central_step(x.dtype)
    u = stretched(geometry, x, u)
    y = geometry.exponential(x, u)
    velocity = (geometry.exponential(x, (1 + h) * u) - geometry.exponential(x, (1 - h) * u)) / (2 * h)
    # rounding of the ends is divided by h, and paired with the velocity in the metric
    scale = largest(geometry.lower_index(y, velocity)) * max(largest(x), largest(y)) / h
    before, after = product(geometry, x, u, u), product(geometry, y, velocity, velocity)
    assert_close(after, before, "<v, v> of the velocity v at the end of Exp(x, u) against <u, u>", scale=scale, slack=4)


def geodesics_cross_spheres_at_right_angles(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor) -> None:
    """Raise unless Gauss's lemma holds: ``<D Exp_x(u)[u], D Exp_x(u)[v]> == <u, v>``, by central differences.

    The lemma holds of no other curves than the geodesics of the metric. Those of another metric may begin along their
    tangents and keep their speed, as do the one-parameter subgroups of a group, which are geodesics only if the metric
    is invariant from both sides.
    """
    h = central_step(x.dtype)
    u, v = stretched(geometry, x, u), stretched(geometry, x, v)
    y = geometry.exponential(x, u)
    along, across = (
        (geometry.exponential(x, u + h * w) - geometry.exponential(x, u - h * w)) / (2 * h) for w in (u, v)
    )
    # as above, for two differences
    scale = sum(largest(geometry.lower_index(y, w)) for w in (along, across)) * max(largest(x), largest(y)) / h
    before, after = product(geometry, x, u, v), product(geometry, y, along, across)
    assert_close(after, before, "<D Exp(x, u)[u], D Exp(x, u)[v]> against <u, v>", scale=scale, slack=4)


def the_gradient_is_the_slope_along_a_step(geometry: Geometry, x: Tensor, u: Tensor, a: Tensor, exact: bool) -> None:
    """Raise unless ``f(x) = sum(a x)`` changes along a step by ``<raise(a), u>``, by a central difference.

    Unlike the musical identity, this also compares the units of the step with those of the metric.
    """
    h = central_step(x.dtype)
    u = stretched(geometry, x, u)
    difference = (geometry.curve(x, h * u, exact) - geometry.curve(x, -h * u, exact)) / (2 * h)
    gradient = geometry.raise_index(x, a.clone())
    scale = largest(a) * (largest(x) / h + largest(u)) + largest(gradient) * largest(u)
    slope = product(geometry, x, gradient, u)
    error = tolerance(x.dtype) * largest(a) * largest(u)
    assert_close(slope, pairing([a], [difference]), "<raise(a), u> against d/dt f(R(x, t u))", scale=scale + error)


def the_logarithm_undoes_the_exponential(geometry: Geometry, x: Tensor, u: Tensor, t: float) -> None:
    """Raise unless the logarithm of the end of a geodesic is its velocity ``t u``, even if that is short."""
    u = t * u
    back = geometry.logarithm(x, geometry.exponential(x, u))
    assert_close(back, u, "log(Exp(x, u))", scale=max(1.0, largest(x)) ** 2)


def the_distance_along_a_geodesic_is_its_length(geometry: Geometry, x: Tensor, u: Tensor, t: float) -> None:
    """Raise unless the manifold's ``dist`` to the end of a geodesic, and back, is the length of its velocity ``t u``.

    Squares are compared, since distances are computed by inverse cosines, which halve the digits of short distances.
    With ``u = 0`` this tests the distance from a point to itself.
    """
    u = t * u
    y = geometry.exponential(x, u)
    expected, scale = product(geometry, x, u, u), max(1.0, largest(x)) ** 2
    for what, ends in (("dist(x, Exp(x, u))", (x, y)), ("dist(Exp(x, u), x)", (y, x))):
        squared = (geometry.manifold.dist(*ends) ** 2).sum()
        assert_close(squared, expected.to(squared), f"{what}^2 against <u, u>", scale=scale)
