"""What surrounds the passes of a step: saved values, and hooks."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rsam.geometry import Product

__all__ = ["PassHook", "SavedPoints", "Snapshot"]


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


class SavedPoints:
    """Where parameters were, block by block: stacks, which a step computes with anyway, and copies of the others.

    Attributes
    ----------
    points : list of Tensor
        The points at the last :meth:`take`, one tensor per block.
    """

    def __init__(self) -> None:
        self.points: list[Tensor] = []
        self._alone = Snapshot()

    def take(self, space: Product) -> None:
        """Copy the present values of the parameters."""
        self._alone.take([space.params[b.indices[0]] for b in space.blocks if not b.stacked])
        copies = iter(self._alone.copies)
        self.points = [b.gather(space.params) if b.stacked else b.enter(next(copies)) for b in space.blocks]

    def put_back(self, space: Product, plain: bool | None = None) -> None:
        """Copy the values back, of all parameters or of the plain ones or of the others."""
        chosen = [(b, x) for b, x in zip(space.blocks, self.points, strict=True) if plain in (None, b.plain)]
        params = [space.params[i] for b, _ in chosen for i in b.indices]
        if params:
            torch._foreach_copy_(params, [row for b, x in chosen for row in b.scatter(x)])
