"""Every exception of the package."""

from __future__ import annotations

__all__ = ["NotFinite", "UnsupportedOperation"]


class NotFinite(RuntimeError):
    """A loss, a gradient or a product with the Hessian is not finite, or the norm of a gradient overflows.

    A training loop that would rather go on or end early catches this and nothing else: the weights are as they were
    before the step or the measurement.
    """


class UnsupportedOperation(NotImplementedError):
    """A manifold has no such operation; the message names the manifold and, in a list, the parameter."""
