"""Assert what several properties need, and measure tensors for these."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import geoopt
import torch
from torch import Tensor

from rsam.geometry import Geometry
from rsam.geometry.linalg import largest
from rsam.testing.comparison import assert_close, tolerance
from rsam.testing.points import metric_norm

__all__ = [
    "assert_isometric",
    "assert_on_manifold",
    "assert_tangent",
    "central_step",
    "is_own",
    "product",
    "second_step",
    "stretched",
]


def product(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return the inner product over the whole tensor, a real scalar."""
    value = geometry.inner(x, u, v).sum()
    return value.real if value.is_complex() else value


def is_own(manifold: geoopt.Manifold, method: str) -> bool:
    """Tell whether a manifold has a method that neither geoopt nor rsam defines."""
    function = getattr(type(manifold), method, None)
    return function is not None and not function.__module__.startswith(("geoopt.", "rsam."))


def stretched(geometry: Geometry, x: Tensor, u: Tensor, length: float = 0.5) -> Tensor:
    """Rescale ``u`` to a length in the metric, if its own is positive and finite."""
    norm = metric_norm(geometry, x, u)
    return u * (length / norm) if 0 < norm < float("inf") else u


def central_step(dtype: torch.dtype) -> float:
    """Return the step of a central difference that balances the error ``h^2`` with the rounding ``eps / h``."""
    return math.pow(torch.finfo(dtype).eps, 1 / 3)


def second_step(dtype: torch.dtype) -> float:
    """Return the step of a second difference that balances the error ``h^2`` with a thousand roundings ``eps / h^2``.

    A shorter step, for one rounding, would tolerate any acceleration in single precision.
    """
    return math.pow(1000 * torch.finfo(dtype).eps, 1 / 4)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    # geoopt.Lorentz compares with a tensor of the default dtype
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


def assert_on_manifold(geometry: Geometry, x: Tensor, what: str) -> None:
    """Raise unless geoopt's own check passes to half the digits of the coordinates."""
    error = tolerance(x.dtype) * max(1.0, largest(x)) ** 2
    ok, reason = geometry.manifold.check_point_on_manifold(x, atol=error, rtol=error, explain=True)
    if not ok:
        raise AssertionError(f"{what} is not on the manifold: {reason}; it is {x.tolist()}")


def assert_isometric(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, y: Tensor, tu: Tensor, tv: Tensor) -> None:
    """Raise unless the tangents ``tu`` and ``tv`` at ``y`` have the inner products of ``u`` and ``v`` at ``x``."""
    for what, before, after in (
        ("<T(v), T(v)> against <v, v>", (v, v), (tv, tv)),
        ("<T(u), T(v)> against <u, v>", (u, v), (tu, tv)),
    ):
        scale = float(product(geometry, x, u, u).abs() + product(geometry, x, v, v).abs())
        scale += largest(after[0]) * largest(after[1]) + largest(before[0]) * largest(before[1])
        scale += float(torch.finfo(x.dtype).eps) * largest(x) ** 2  # for zeros that were transported
        assert_close(product(geometry, y, *after), product(geometry, x, *before), what, scale=scale)


def assert_tangent(geometry: Geometry, x: Tensor, u: Tensor, what: str) -> None:
    """Raise unless geoopt's own check passes to half the digits of the coordinates."""
    error = tolerance(x.dtype) * max(1.0, largest(x)) * max(1.0, largest(u))
    with _default_dtype(x.real.dtype):
        ok, reason = geometry.manifold.check_vector_on_tangent(
            x, u, ok_point=True, atol=error, rtol=error, explain=True
        )
    if not ok:
        raise AssertionError(f"{what} is not tangent: {reason}; it is {u.tolist()}")
