"""Check vector transports and the pullback."""

from __future__ import annotations

import torch
from torch import Tensor

from rsam.geometry import Geometry, pairing
from rsam.geometry.linalg import largest
from rsam.testing.comparison import assert_close
from rsam.testing.properties.asserts import assert_isometric, assert_tangent, is_own

__all__ = [
    "a_transported_tangent_is_tangent",
    "steps_with_transport_agree_with_their_parts",
    "the_pullback_is_the_adjoint_of_the_derivative",
    "transport_along_nothing_is_the_identity",
    "transport_back_undoes_transport",
    "transport_is_isometric",
    "transport_is_linear",
]

#: Methods of geoopt's that step and transport at once, each with those that do one of them.
TOGETHER = {"retr_transp": ("retr", "transp_follow_retr"), "expmap_transp": ("expmap", "transp_follow_expmap")}


def a_transported_tangent_is_tangent(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, exact: bool) -> None:
    """Raise unless a tangent carried along a step is tangent at its end."""
    y = geometry.curve(x, u, exact)
    carried = geometry.transport(x, u, y, v, exact)
    assert_tangent(geometry, y, carried, "the transported tangent")
    assert_close(geometry.project(y, carried), carried, "its projection", scale=largest(v) + largest(x))


def steps_with_transport_agree_with_their_parts(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor) -> None:
    """Raise unless the manifold's own ``retr_transp`` is ``retr`` and ``transp_follow_retr``; so for ``expmap``."""
    manifold = geometry.manifold
    for together, parts in TOGETHER.items():
        if is_own(manifold, together) or is_own(manifold, parts[1]):
            results = getattr(manifold, together)(x, u, v)
            alone = getattr(manifold, parts[0])(x, u), getattr(manifold, parts[1])(x, u, v)
            for name, one, other in zip(parts, results, alone, strict=True):
                assert_close(one, other, f"{together} against {name}", scale=largest(x) + largest(v))


def transport_is_linear(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, t: float, exact: bool) -> None:
    """Raise unless ``T(u + t v) == T(u) + t T(v)``."""
    y = geometry.curve(x, u, exact)
    whole = geometry.transport(x, u, y, u + t * v, exact)
    parts = geometry.transport(x, u, y, u, exact) + t * geometry.transport(x, u, y, v, exact)
    assert_close(whole, parts, "T(u + t v) against T(u) + t T(v)", scale=largest(u) + largest(v) + largest(x))


def transport_along_nothing_is_the_identity(geometry: Geometry, x: Tensor, v: Tensor, exact: bool) -> None:
    """Raise unless a step of length zero leaves tangents unchanged."""
    zero = torch.zeros_like(x)
    assert_close(geometry.transport(x, zero, x.clone(), v, exact), v, "T_0(v)", scale=largest(x))


def transport_is_isometric(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, exact: bool) -> None:
    """Raise unless transport preserves inner products; checked if the geometry is ``isometric``."""
    y = geometry.curve(x, u, exact)
    tu, tv = geometry.transport(x, u, y, u, exact), geometry.transport(x, u, y, v, exact)
    assert_isometric(geometry, x, u, v, y, tu, tv)


def transport_back_undoes_transport(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, exact: bool) -> None:
    """Raise unless transport and transport back give the tangent itself; checked if the geometry is ``isometric``."""
    y = geometry.curve(x, u, exact)
    back = geometry.transport_back(x, u, y, geometry.transport(x, u, y, v, exact), exact)
    assert_close(back, v, "T^-1(T(v))", scale=largest(x))


def the_pullback_is_the_adjoint_of_the_derivative(
    geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, a: Tensor, exact: bool
) -> None:
    """Raise unless ``sum(pullback(a) v)`` is the derivative of ``sum(a R(x, u + s v))``, by a central difference."""
    covector = geometry.pullback(x, u, a, exact)
    h = float(torch.finfo(x.dtype).eps) ** (1 / 3)
    ends = geometry.curve(x, u + h * v, exact) - geometry.curve(x, u - h * v, exact)
    derivative = pairing([a], [ends]) / (2 * h)
    scale = largest(a) * (largest(x) + largest(u)) / h + largest(covector) * largest(v)
    assert_close(pairing([covector], [v]), derivative, "sum(pullback(a) v) against d/ds f(R(x, u + s v))", scale=scale)
