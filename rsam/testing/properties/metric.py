"""Check points, the metric, and the projection onto tangent spaces."""

from __future__ import annotations

import torch
from torch import Tensor

from rsam.geometry import Geometry, pairing
from rsam.geometry.linalg import largest
from rsam.testing.comparison import assert_close, tolerance
from rsam.testing.properties.asserts import assert_on_manifold, assert_tangent, central_step, is_own, product

__all__ = [
    "projecting_a_point_moves_it_nowhere",
    "raising_undoes_lowering",
    "random_points_are_on_the_manifold",
    "scaling_components_keeps_tangents",
    "the_derivative_of_projecting_points_is_tangent",
    "the_metric_is_bilinear",
    "the_metric_is_symmetric_and_positive",
    "the_point_is_on_the_manifold",
    "the_projection_fixes_tangents",
    "the_projection_is_idempotent",
    "the_projection_is_tangent",
    "the_riemannian_gradient_is_tangent",
    "the_riemannian_gradient_represents_the_euclidean_one",
    "the_squared_norm_is_an_inner_product",
    "there_is_one_inner_product_per_point",
]

RANDOM = ("random", "random_normal", "random_uniform", "random_naive", "origin")


def the_point_is_on_the_manifold(geometry: Geometry, x: Tensor) -> None:
    """Raise unless geoopt's check finds ``x`` on the manifold, that is, the projection that made it is right."""
    assert_on_manifold(geometry, x, "the point")


def random_points_are_on_the_manifold(geometry: Geometry, x: Tensor) -> None:
    """Raise unless the manifold's own ``random``, ``random_*`` and ``origin`` make points of a shape and a dtype."""
    for name in RANDOM:
        if not is_own(geometry.manifold, name):
            continue
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            point = getattr(geometry.manifold, name)(*x.shape, dtype=x.dtype, device=x.device)
        if point.shape != x.shape or point.dtype != x.dtype:
            raise AssertionError(
                f"{name}(*{tuple(x.shape)}, dtype={x.dtype}) has shape {tuple(point.shape)} and is {point.dtype}"
            )
        assert_on_manifold(geometry, point, f"the point that {name} makes")


def there_is_one_inner_product_per_point(geometry: Geometry, x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> None:
    """Raise unless inner products have the shape of the batch, or that with ``ndim`` dimensions of size 1 behind it.

    A manifold's own ``inner``, ``norm`` and ``dist`` must have the first shape, and the second with ``keepdim=True``.
    """
    manifold = geometry.manifold
    batch = tuple(x.shape[: x.dim() - manifold.ndim])
    kept = (*batch, *[1] * manifold.ndim)

    def check(what: str, result: Tensor, *expected: tuple[int, ...]) -> None:
        if tuple(result.shape) not in expected:
            raise AssertionError(
                f"{what} has shape {tuple(result.shape)} for x of shape {tuple(x.shape)}, expected {expected[-1]}: one "
                f"number per point, and by ndim = {manifold.ndim} the last {manifold.ndim} dimensions are a point's"
            )

    for name, arguments in (("inner", (x, u, v)), ("norm", (x, u)), ("dist", (x, y))):
        if is_own(manifold, name):
            for keepdim, expected in ((False, batch), (True, kept)):
                result = getattr(manifold, name)(*arguments, keepdim=keepdim)
                check(f"{name}(..., keepdim={keepdim})", result, expected)
    check("the inner product", geometry.inner(x, u, v), batch, kept)


def projecting_a_point_moves_it_nowhere(geometry: Geometry, x: Tensor) -> None:
    """Raise unless the projection onto the manifold does not move its points."""
    assert_close(geometry.project_point(x), x, "the projected point")


def the_derivative_of_projecting_points_is_tangent(geometry: Geometry, x: Tensor, v: Tensor, a: Tensor) -> None:
    """Raise unless the derivative of the projection onto the manifold is tangent, and fixes tangents ``v``.

    Both follow for any smooth ``projx`` that ends on the manifold and leaves its points where they are, orthogonal or
    not. Other properties draw their tangents by ``proju``, and so cannot see that ``proju`` lacks a direction if the
    Riemannian gradient lacks it too. Central differences: ``projx`` needs no derivative of torch, but must be smooth
    around ``x``, so that points made for a test must not lie where it clips.
    """
    h = central_step(x.dtype)

    def derivative(b: Tensor) -> Tensor:
        return (geometry.project_point(x + h * b) - geometry.project_point(x - h * b)) / (2 * h)

    # rounding leaves eps |x| / h, and the difference h^2 times third derivatives, which are of the order of one along
    # short directions: both are about eps^(2/3), of which the scale allows thousands
    along = derivative(a / max(1.0, largest(a)))
    scale = largest(x) / h
    assert_close(geometry.project(x, along), along, "the projection of D projx(x)[a]", scale=scale, slack=4)
    assert_close(derivative(v), v, "D projx(x)[v] of a tangent v", scale=scale, slack=4)


def the_metric_is_symmetric_and_positive(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor) -> None:
    """Raise unless ``<u, v> == <v, u>`` and ``<u, u>`` is positive, up to rounding.

    Raise also unless they satisfy the Cauchy-Schwarz inequality.
    """
    uv, vu = product(geometry, x, u, v), product(geometry, x, v, u)
    uu, vv = product(geometry, x, u, u), product(geometry, x, v, v)
    squares = largest(u) ** 2 + largest(v) ** 2  # cancel if the metric is indefinite
    assert_close(uv, vu, "<u, v> against <v, u>", scale=float(uu.abs() + vv.abs()) + squares)
    error = tolerance(x.dtype)
    if uu < -error * squares:
        raise AssertionError(f"<u, u> is {float(uu):.3g}, expected a positive number")
    if float(uv) ** 2 > float(uu * vv) * (1 + error) + error * squares**2:
        raise AssertionError(f"<u, v> is {float(uv):.6g}, more than the product of the lengths allows")


def the_metric_is_bilinear(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, t: float) -> None:
    """Raise unless ``<u, u + t v> == <u, u> + t <u, v>``."""
    uu, uv = product(geometry, x, u, u), product(geometry, x, u, v)
    scale = (largest(u) + largest(v)) ** 2 + float(uu.abs() + product(geometry, x, v, v).abs())
    whole = product(geometry, x, u, u + t * v)
    assert_close(whole, uu + t * uv, "<u, u + t v> against <u, u> + t <u, v>", scale=scale)


def the_squared_norm_is_an_inner_product(geometry: Geometry, x: Tensor, u: Tensor) -> None:
    """Raise unless ``<u, u>`` is the squared norm of the whole tensor, and the sum of those at its points."""
    whole, squares = product(geometry, x, u, u), largest(u) ** 2
    assert_close(geometry.squared_norm(x, u), whole, "the squared norm against <u, u>", scale=squares)
    assert_close(geometry.point_inner(x, u).sum(), whole, "those of the points against <u, u>", scale=squares)


def scaling_components_keeps_tangents(geometry: Geometry, x: Tensor, u: Tensor) -> None:
    """Raise unless a tangent stays one if each component is scaled by a function of its square, as Adam scales it.

    Raise also if a square of ``component_inner`` exceeds ``<u, u>``, or all together fall short of it.
    """
    squares, whole = geometry.component_inner(x, u), float(product(geometry, x, u, u))
    scaled = u / (1 + squares)
    assert_close(geometry.project(x, scaled), scaled, "the projection of scaled components", scale=largest(x))
    error = tolerance(x.dtype) * (abs(whole) + largest(u) ** 2)
    most, total = largest(squares), float(squares.sum())
    if not (most <= whole + error and total >= whole - error):
        raise AssertionError(f"squares of components reach {most:.6g} and sum to {total:.6g}, for <u, u> = {whole:.6g}")


def the_projection_is_tangent(geometry: Geometry, x: Tensor, a: Tensor) -> None:
    """Raise unless geoopt's check finds the projection of an ambient vector tangent."""
    assert_tangent(geometry, x, geometry.project(x, a), "the projection")


def the_projection_is_idempotent(geometry: Geometry, x: Tensor, a: Tensor) -> None:
    """Raise unless projecting a second time changes nothing."""
    once = geometry.project(x, a)
    assert_close(geometry.project(x, once), once, "the second projection against the first", scale=largest(a))


def the_projection_fixes_tangents(geometry: Geometry, x: Tensor, v: Tensor) -> None:
    """Raise unless a tangent is its own projection."""
    assert_close(geometry.project(x, v), v, "the projection of a tangent", scale=largest(x))


def the_riemannian_gradient_is_tangent(geometry: Geometry, x: Tensor, a: Tensor) -> None:
    """Raise unless raising the index of any covector gives a tangent."""
    gradient = geometry.raise_index(x, a.clone())
    assert_tangent(geometry, x, gradient, "the Riemannian gradient")
    assert_close(geometry.project(x, gradient), gradient, "its projection", scale=largest(a))


def the_riemannian_gradient_represents_the_euclidean_one(geometry: Geometry, x: Tensor, a: Tensor, v: Tensor) -> None:
    """Raise unless the musical identity holds: ``sum(a * v) == <raise(a), v>`` for every tangent ``v``."""
    gradient = geometry.raise_index(x, a.clone())
    scale = largest(a) * largest(v) + largest(gradient) * largest(v)
    assert_close(product(geometry, x, gradient, v), pairing([a], [v]), "<raise(a), v> against sum(a v)", scale=scale)


def raising_undoes_lowering(geometry: Geometry, x: Tensor, v: Tensor) -> None:
    """Raise unless lowering and then raising the index of a tangent gives the tangent."""
    covector = geometry.lower_index(x, v)
    assert_close(geometry.raise_index(x, covector), v, "raise(lower(v))", scale=largest(x))
