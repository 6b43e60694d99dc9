"""Every exception of the package."""

from __future__ import annotations

__all__ = ["NotFinite", "SingularPoint", "UnsupportedOperation"]


class NotFinite(RuntimeError):
    """A loss, a gradient or a product with the Hessian is not finite, or the norm of a gradient overflows.

    A training loop that would rather go on or end early catches this and nothing else: the weights are as they were
    before the step or the measurement.
    """


class SingularPoint(NotFinite):
    """An operation of a manifold has no finite answer at a finite point: on the boundary, or for a step that overflows.

    The message names the parameter; an optimizer has written nothing.
    """


class UnsupportedOperation(NotImplementedError):
    """A manifold has no such operation; the message names the manifold and, in a list, the parameter."""
