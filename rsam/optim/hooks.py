"""Define hooks around the passes of a step."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["PassHook", "check_hook"]


class PassHook(Protocol):
    """Hook for :meth:`rsam.RSAM.register_pass_hook`: called before each pass of a step, and after the last.

    Examples
    --------
    >>> import torch, rsam
    >>> class Report:
    ...     def before_pass(self, kept):
    ...         print("at", weight.item())
    ...     def after_passes(self):
    ...         print("back at", weight.item())
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> optimizer = rsam.RSAM([weight], torch.optim.SGD, lr=0.25, rho=0.5)
    >>> optimizer.register_pass_hook(Report())
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = weight.square().sum()
    ...     loss.backward()
    ...     return loss
    >>> loss = optimizer.step(closure)
    at 1.0
    at 1.5
    back at 1.0
    >>> weight.item()
    0.25
    """

    def before_pass(self, kept: bool) -> None:
        """Prepare for a pass, an evaluation of the closure.

        Parameters
        ----------
        kept : bool
            Whether side effects of this pass, such as batch statistics, should stay. They stay for one pass of each
            step: the first, or the second if the first used only a part of the batch.
        """

    def after_passes(self) -> None:
        """Finish a step; called when the weights are restored, and after an exception in any pass."""


def check_hook(hook: Any) -> None:
    """Refuse a hook that lacks a method."""
    for method in ("before_pass", "after_passes"):
        if not callable(getattr(hook, method, None)):
            raise TypeError(
                f"the pass hook {type(hook).__name__} has no method {method}; before_pass(kept) and after_passes() "
                "replace before_first_pass, before_second_pass and after_second_pass"
            )
