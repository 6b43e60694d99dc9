"""What surrounds the passes of a step: saved values, and hooks."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["PassHook", "Snapshot"]


class PassHook(Protocol):
    """What :meth:`rsam.RSAM.register_pass_hook` takes: called before each pass of a step, and after the last."""

    def before_pass(self, kept: bool) -> None:
        """Prepare for a pass, an evaluation of the closure.

        Parameters
        ----------
        kept : bool
            Whether what this pass leaves behind, such as batch statistics, is to stay. That is so for one pass of
            each step: the first, or the second if the first saw a part of the batch only.
        """

    def after_passes(self) -> None:
        """Finish a step; called once the weights are back, and after an exception in any pass."""


class Snapshot:
    """Copies of tensors, in memory that is kept from one time to the next.

    Attributes
    ----------
    copies : list of Tensor
        The values at the last :meth:`take`.
    """

    def __init__(self) -> None:
        self.copies: list[Tensor] = []

    @torch.no_grad()
    def take(self, tensors: list[Tensor]) -> None:
        """Copy the present values."""
        if [(c.shape, c.dtype, c.device) for c in self.copies] != [(t.shape, t.dtype, t.device) for t in tensors]:
            self.copies = [torch.empty_like(t, requires_grad=False) for t in tensors]
        if tensors:
            torch._foreach_copy_(self.copies, tensors)

    @torch.no_grad()
    def put_back(self, tensors: list[Tensor]) -> None:
        """Copy the values into the tensors that they are of."""
        if tensors:
            torch._foreach_copy_(tensors, self.copies)
