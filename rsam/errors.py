"""Define every exception of the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "NoHigherDerivative",
    "NotFinite",
    "PropertyError",
    "SingularPoint",
    "StalePlan",
    "UnsupportedOperation",
]


class NotFinite(RuntimeError):
    """A loss, a gradient or a product with the Hessian is not finite, or the norm of a gradient overflows.

    A training loop that wants to go on, or to end early, can catch exactly this error: the weights are as they were
    before the step or the measurement.
    """


class SingularPoint(NotFinite):
    """An operation of a manifold has no finite result at a finite point: on the boundary, or for a step that overflows.

    The message names the parameter. An optimizer that raises it has changed nothing.
    """


class UnsupportedOperation(NotImplementedError):
    """A manifold lacks an operation; the message names the manifold and, in a list, the parameter."""


class StalePlan(RuntimeError):
    """Points have another shape, dtype or device than the block was planned for; the caller must plan anew."""


class NoHigherDerivative(RuntimeError):
    """An operation in the loss cannot be differentiated as often as needed; the message says where."""


class PropertyError(AssertionError):
    """A property of a manifold or an optimizer does not hold.

    Attributes
    ----------
    property : str
        Name of the property.
    case : dict
        The simplest arguments found for which it fails.
    """

    def __init__(self, name: str, case: Mapping[str, Any], message: str) -> None:
        self.property = name
        self.case = dict(case)
        super().__init__(message)
