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

    Examples
    --------
    >>> import torch, rsam
    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = rsam.RSAM([weight], torch.optim.SGD, lr=0.1)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = weight.sqrt().sum()
    ...     loss.backward()
    ...     return loss
    >>> try:
    ...     optimizer.step(closure)
    ... except rsam.NotFinite:
    ...     print("left out;", weight.item())
    left out; 0.0
    """


class SingularPoint(NotFinite):
    """An operation of a manifold has no finite result at a finite point: on the boundary, or for a step that overflows.

    The message names the parameter. An optimizer that raises it has changed nothing.
    """


class UnsupportedOperation(NotImplementedError):
    """A manifold lacks an operation; the message names the manifold and, in a list, the parameter.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> birkhoff = rsam.geometry.geometry_of(geoopt.BirkhoffPolytope())
    >>> birkhoff.exponential(torch.eye(2), torch.zeros(2, 2))
    Traceback (most recent call last):
      ...
    rsam.errors.UnsupportedOperation: BirkhoffPolytope has no exponential; give it one with @rsam.geometry.register...
    """


class StalePlan(RuntimeError):
    """Points have another shape, dtype or device than the block was planned for; the caller must plan anew."""


class NoHigherDerivative(RuntimeError):
    """An operation in the loss cannot be differentiated as often as needed; the message says where.

    Examples
    --------
    >>> import torch, rsam
    >>> class Once(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return 2 * x
    ...     @staticmethod
    ...     @torch.autograd.function.once_differentiable
    ...     def backward(ctx, gradient):
    ...         return 2 * gradient
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> penalty = rsam.losses.GradientNorm([weight])
    >>> try:
    ...     penalty(Once.apply(weight).square().sum())
    ... except rsam.losses.NoHigherDerivative as error:
    ...     print(error)
    trying to differentiate twice a function that was marked with @once_differentiable; method='difference' needs ...
    """


class PropertyError(AssertionError):
    """A property of a manifold or an optimizer does not hold.

    Parameters
    ----------
    name : str
        Name of the property.
    case : mapping of str to object
        The simplest arguments found for which it fails.
    message : str
        The whole text.

    Attributes
    ----------
    property : str
        Name of the property.
    case : dict
        The simplest arguments found for which it fails.

    Examples
    --------
    >>> import rsam.testing
    >>> try:  # as check_manifold does
    ...     raise rsam.testing.PropertyError("a step stays on the manifold", {"u": [0, 0.5]}, "not true that ...")
    ... except rsam.testing.PropertyError as error:
    ...     print(error.property, error.case)
    a step stays on the manifold {'u': [0, 0.5]}
    """

    def __init__(self, name: str, case: Mapping[str, Any], message: str) -> None:
        self.property = name
        self.case = dict(case)
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:  # processes of a pool send it to each other
        return type(self), (self.property, self.case, *self.args)
