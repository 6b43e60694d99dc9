"""Where others may step in between the two passes of RSAM."""

from __future__ import annotations

from typing import Protocol

__all__ = ["PassHook"]


class PassHook(Protocol):
    """What :meth:`rsam.RSAM.register_pass_hook` takes: told where the two passes of a step begin and end."""

    def before_first_pass(self) -> None:
        """Called by ``step(closure)`` before the closure runs at the weights themselves."""

    def before_second_pass(self) -> None:
        """Called once the weights are perturbed."""

    def after_second_pass(self) -> None:
        """Called once the weights are back, and after an exception in either pass."""
