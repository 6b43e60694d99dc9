"""Check second derivatives, and random tangents, whose covariance is the inverse metric."""

from __future__ import annotations

import torch
from torch import Tensor

from rsam.geometry import Geometry, pairing
from rsam.geometry.linalg import largest
from rsam.testing.comparison import assert_close
from rsam.testing.properties.asserts import product, second_step, stretched

__all__ = [
    "frames_are_orthonormal",
    "random_tangents_are_isotropic",
    "second_order_steps_agree_with_the_geodesic",
    "steps_have_finite_derivatives_at_zero",
    "the_acceleration_is_that_of_the_geodesic",
    "the_connection_is_half_the_slope_of_the_acceleration",
]


def steps_have_finite_derivatives_at_zero(geometry: Geometry, x: Tensor, v: Tensor, a: Tensor, exact: bool) -> None:
    """Raise unless a step can be differentiated twice at a zero tangent, with the identity as first derivative.

    A norm in the computation would make the derivatives NaN.
    """
    with torch.enable_grad():
        u = torch.zeros_like(x).requires_grad_()
        loss = pairing([a], [geometry.curve(x, u, exact)])
        (first,) = torch.autograd.grad(loss, u, create_graph=True)
        slope = pairing([first], [v])
        second = torch.zeros_like(u)
        if slope.requires_grad:  # it does not if the step is an addition
            (second,) = torch.autograd.grad(slope, u, allow_unused=True, materialize_grads=True)
    if not torch.isfinite(second).all():
        raise AssertionError(f"the second derivative at a zero tangent is not finite: {second.tolist()}")
    scale = largest(a) * largest(v) * max(1.0, largest(x)) ** 2
    assert_close(slope.detach(), pairing([a], [v]), "the derivative of f(R(x, u)) at u = 0 along v", scale=scale)


def the_acceleration_is_that_of_the_geodesic(geometry: Geometry, x: Tensor, v: Tensor) -> None:
    """Raise unless ``acceleration`` is the second derivative of the exponential, by a central difference."""
    v = stretched(geometry, x, v)
    h = second_step(x.dtype)
    ends = geometry.exponential(x, h * v) + geometry.exponential(x, -h * v)
    expected = (ends - 2 * x) / h**2
    assert_close(geometry.acceleration(x, v), expected, "the acceleration", scale=largest(x) / h**2, slack=4)


def second_order_steps_agree_with_the_geodesic(geometry: Geometry, x: Tensor, v: Tensor) -> None:
    """Raise unless ``retract_second_order`` has the geodesic's acceleration, by a central difference."""
    v = stretched(geometry, x, v)
    h = second_step(x.dtype)
    ends = geometry.retract_second_order(x, h * v) + geometry.retract_second_order(x, -h * v)
    acceleration = geometry.acceleration(x, v)
    assert_close((ends - 2 * x) / h**2, acceleration, "the acceleration of the step", scale=largest(x) / h**2, slack=4)


def the_connection_is_half_the_slope_of_the_acceleration(
    geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, a: Tensor
) -> None:
    """Raise unless ``connection(x, a, u)`` pairs with ``v`` to the polarised ``<a, acceleration>``, symmetrically."""
    u, v = stretched(geometry, x, u), stretched(geometry, x, v)
    sums, differences = geometry.acceleration(x, u + v), geometry.acceleration(x, u - v)
    expected = pairing([a], [sums - differences]) / 4
    scale = largest(a) * max(largest(sums), largest(differences))
    for first, second in ((u, v), (v, u)):
        actual = pairing([geometry.connection(x, a, first)], [second])
        assert_close(actual, expected, "the pairing of connection(x, a, u) with v", scale=scale)


def frames_are_orthonormal(geometry: Geometry, x: Tensor, v: Tensor, a: Tensor) -> None:
    """Raise unless coordinates are an isometry from ``R^dimension`` onto the tangent space, and back its transpose."""
    shape = geometry.coordinates_shape(x)
    if shape.numel() != geometry.dimension(x):
        raise AssertionError(f"{tuple(shape)} coordinates, but the dimension is {geometry.dimension(x)}")
    generator = torch.Generator(x.device).manual_seed(0)
    y, z = (torch.randn(shape, dtype=x.real.dtype, device=x.device, generator=generator) for _ in range(2))
    t, u = geometry.from_coordinates(x, y), geometry.from_coordinates(x, z)
    assert_close(geometry.project(x, u), u, "the projection of a tangent made of coordinates")
    for first, second in ((t, u), (u, u)):
        coordinates = pairing([y if first is t else z], [z])
        scale = largest(geometry.lower_index(x, first)) * largest(second)
        assert_close(product(geometry, x, first, second), coordinates, "the inner product", scale=scale)
    slope = pairing([geometry.to_coordinates(x, a)], [z])
    assert_close(slope, pairing([a], [u]), "the pairing of to_coordinates(a) with z", scale=largest(a) * largest(u))
    v = stretched(geometry, x, v)
    there = geometry.to_coordinates(x, geometry.lower_index(x, v))
    scale = largest(geometry.lower_index(x, v)) * largest(u)
    assert_close(geometry.from_coordinates(x, there), v, "a tangent made of its own coordinates", scale=scale)


def random_tangents_are_isotropic(geometry: Geometry, x: Tensor, v: Tensor) -> None:
    """Raise unless random tangents are tangent, ``E<z, z>`` is the dimension and ``E<z, v>^2`` is ``<v, v>``.

    The means over ``n`` samples have relative standard deviations ``sqrt(2 / (n dimension))`` and ``sqrt(2 / n)``,
    since the samples are chi-squared; the bound is six of them, for a fixed generator.
    """
    n = 1000
    v = stretched(geometry, x, v)
    points = x.expand(n, *x.shape)
    z = geometry.random_tangent(points, torch.Generator(x.device).manual_seed(0))
    assert_close(geometry.project(points, z), z, "the projection of random tangents")
    dimension = geometry.dimension(x)
    for what, u, expected, degrees in (
        ("E<z, z>", z, float(dimension), dimension),
        ("E<z, v>^2 / <v, v>", v.expand_as(z), 1.0, 1),
    ):
        if not degrees or not v.any():
            continue
        products = geometry.inner(points, z, u).real.reshape(n, -1).sum(-1)
        if u is not z:
            products = products**2 / geometry.inner(x, v, v).real.sum()
        mean = float(products.mean())
        bound = 6 * expected * (2 / (n * degrees)) ** 0.5
        if not abs(mean - expected) <= bound:
            raise AssertionError(f"{what} is {mean:.4g} over {n} samples, expected {expected:g} within {bound:.2g}")
