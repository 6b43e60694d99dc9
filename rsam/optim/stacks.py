"""Keep the state of equal parameters as rows of one tensor; ``state[p]`` holds the rows."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rsam.geometry import Block
from rsam.geometry.sharded import like, local

__all__ = ["StackedEntry"]

Rows = tuple[int, ...] | None  # rows of a block; None for all


class StackedEntry:
    """Entry of the state of a block's parameters, for example a momentum, stacked in the order of the block.

    ``state[p][name]`` are views of the stack. An entry that was loaded or replaced is recognised by its identity, and
    copied into the stack. One that was given other memory through ``.data`` is recognised, too, if that of the first
    parameter was, as in loops over the whole state: to look at each of them would take longer than to look at all
    identities.

    Parameters
    ----------
    name : str
        Key of the entry.
    template : Tensor
        Tensor with shape, dtype and device of the entry of one parameter.
    params : sequence of Tensor
        The parameters.

    Attributes
    ----------
    tensor : Tensor
        The stack.
    rows : sequence of Tensor
        Views of it, one per parameter.
    held : sequence of Tensor
        The tensors ``state[p][name]``: the rows, sharded as the parameters.
    """

    def __init__(self, name: str, template: Tensor, params: Sequence[Tensor]) -> None:
        self.name = name
        self._params = params
        self.tensor = template.new_zeros((len(params), *template.shape))
        self.rows: Sequence[Tensor] = self.tensor.unbind()
        self.held = [like(p, row) for p, row in zip(params, self.rows, strict=True)]

    def take(self, value: Tensor) -> None:
        """Take a tensor as the only row, without a copy."""
        self.tensor, self.rows, self.held = value.unsqueeze(0), (value,), [like(self._params[0], value)]

    def adopt(self, states: Sequence[dict[str, Any]], block: Block) -> tuple[list[int], list[int]]:
        """Copy entries that are not the stack's own into it; return their parameters, and those without an entry.

        Rows of those without are zero from then on.

        Raises
        ------
        ValueError
            For an entry of another shape; names the parameter.
        """
        name = self.name
        adopted: list[int] = []
        missing: list[int] = []
        entries = [state.get(name) for state in states]
        moved = self.rows[0].data_ptr() != self.tensor.data_ptr()
        if not moved and all(map(operator.is_, entries, self.held)):
            return adopted, missing
        if moved:  # what is held has left the stack, and what it holds is as good as replaced
            self.rows = self.tensor.unbind()
            self.held = [like(p, row) for p, row in zip(self._params, self.rows, strict=True)]
        for r, (row, state, entry) in enumerate(zip(self.rows, states, entries, strict=True)):
            if entry is self.held[r]:
                continue
            if entry is None:
                row.zero_()
                missing.append(r)
                continue
            entry = local(torch.as_tensor(entry))
            if entry.shape != row.shape and entry.shape == block.point:
                entry = _of_components(block.enter(entry), row.shape)
            if entry.shape != row.shape:
                raise ValueError(
                    f"{name} in the state of {block.names[r]} has shape {tuple(entry.shape)} instead of "
                    f"{tuple(row.shape)}; remove it from the optimizer's state to start anew"
                )
            row.copy_(entry)
            state[name] = self.held[r]
            adopted.append(r)
        return adopted, missing

    def read(self, rows: Rows) -> Tensor:
        """Return the stack, or some of its rows as one."""
        return self.tensor if rows is None else torch.stack([self.rows[r] for r in rows])

    def write(self, value: Tensor, rows: Rows) -> None:
        """Replace the stack, or some of its rows, in place."""
        if rows is None:
            self.tensor.copy_(value)
        else:
            torch._foreach_copy_([self.rows[r] for r in rows], value.unbind())


def _of_components(square: Tensor, shape: torch.Size) -> Tensor:
    """Reduce a second moment to one per component; other optimizers store copies, or one for each number."""
    square = square.real + square.imag if square.is_complex() else square
    dims = [d for d, n in enumerate(shape) if n == 1 and square.dim() == len(shape)]
    if not dims:
        return square
    least, most = square.amin(dims, keepdim=True), square.amax(dims, keepdim=True)
    return torch.where(least == most, most, square.sum(dims, keepdim=True))
