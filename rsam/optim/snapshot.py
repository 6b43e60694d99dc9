"""Values of tensors, to be put back."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Snapshot"]


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
