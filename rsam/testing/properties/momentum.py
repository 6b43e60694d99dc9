"""Check steps together with the transport by which optimizers carry their momentum.

Each property is checked for the cheapest transport and for the isometric one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rsam.geometry import Geometry
from rsam.geometry.linalg import largest
from rsam.testing.comparison import assert_close
from rsam.testing.properties.asserts import assert_isometric, assert_tangent

__all__ = [
    "momentum_along_nothing_stays",
    "momentum_is_carried_isometrically_if_asked",
    "momentum_is_carried_linearly",
    "momentum_is_carried_to_the_end_of_the_retraction",
    "momentum_that_is_the_step_is_carried_as_any_other",
    "momentum_that_was_carried_is_tangent",
    "step_sizes_scale_the_step",
]


def _assert_rounded(actual: Tensor, expected: Tensor, what: str, scale: float) -> None:
    """Raise if two tensors differ by more than a thousand roundings of numbers of the size ``scale``."""
    assert_close(actual - expected, torch.zeros_like(expected), f"{what}, the difference", scale=scale)


def momentum_is_carried_to_the_end_of_the_retraction(
    geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, t: float
) -> None:
    """Raise unless the point is ``R(x, t u)``, to rounding."""
    end = geometry.retract(x, t * u)
    for isometric in (False, True):
        y, _ = geometry.retract_transport(x, u, v, t, isometric)
        _assert_rounded(y, end, "the end of the step against R(x, t u)", largest(x) + largest(end))


def momentum_that_was_carried_is_tangent(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor) -> None:
    """Raise unless the carried tangent is tangent at the end of the step."""
    for isometric in (False, True):
        y, carried = geometry.retract_transport(x, u, v, isometric=isometric)
        assert_tangent(geometry, y, carried, "the carried momentum")
        assert_close(geometry.project(y, carried), carried, "its projection", scale=largest(v) + largest(x))


def momentum_is_carried_linearly(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, t: float) -> None:
    """Raise unless ``T(u + t v) == T(u) + t T(v)``."""
    for isometric in (False, True):
        whole, one, other = (geometry.retract_transport(x, u, w, isometric=isometric)[1] for w in (u + t * v, u, v))
        scale = largest(u) + largest(v) + largest(x)
        assert_close(whole, one + t * other, "T(u + t v) against T(u) + t T(v)", scale=scale)


def momentum_along_nothing_stays(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor) -> None:
    """Raise unless a step of length zero leaves tangents unchanged."""
    for isometric in (False, True):
        for step, t in ((torch.zeros_like(u), 1.0), (u, 0.0)):
            _, carried = geometry.retract_transport(x, step, v, t, isometric)
            assert_close(carried, v, "T_0(v)", scale=largest(x))


def momentum_is_carried_isometrically_if_asked(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor) -> None:
    """Raise unless the isometric transport preserves inner products; checked if the geometry is ``isometric``."""
    y, tv = geometry.retract_transport(x, u, v, isometric=True)
    _, tu = geometry.retract_transport(x, u, u, isometric=True)
    assert_isometric(geometry, x, u, v, y, tu, tv)


def momentum_that_is_the_step_is_carried_as_any_other(geometry: Geometry, x: Tensor, u: Tensor, t: float) -> None:
    """Raise unless the step itself is carried as an equal copy is; closed forms have short cuts for the step itself."""
    for isometric in (False, True):
        same, equal = (geometry.retract_transport(x, u, v, t, isometric) for v in (u, u.clone()))
        for one, other, what in zip(same, equal, ("the end of the step", "T(u)"), strict=True):
            _assert_rounded(one, other, f"{what} against that of a copy of u", largest(x) + largest(u))


def step_sizes_scale_the_step(geometry: Geometry, x: Tensor, u: Tensor, v: Tensor, t: float) -> None:
    """Raise unless a step ``u`` of size ``-t`` is the step ``-t u``, for a number and for a number per component."""
    squares = geometry.component_inner(x, u)
    for what, size in (
        ("a number", -t),
        ("a tensor", torch.full_like(squares, -t)),
        ("sizes that differ", -t / (1 + squares)),  # as in Adam
    ):
        for isometric in (False, True):
            scaled = geometry.retract_transport(x, u, v, size, isometric)
            plain = geometry.retract_transport(x, size * u, v, isometric=isometric)
            for one, other in zip(scaled, plain, strict=True):
                assert_close(one, other, f"a step by {what} against a scaled step", scale=largest(x) + largest(v))
