"""Closures of a whole batch and of a part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["partial_closures"]


def partial_closures(
    optimizer: torch.optim.Optimizer, loss: Callable[..., Tensor], batch: Sequence[Any], fraction: float = 0.25
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Make the closures of a step that ascends along the gradient of a part of the batch.

    The part is the first examples of the batch, which a loader shuffles; at least one, and with ``fraction=1`` all.

    Parameters
    ----------
    optimizer : rsam.RSAM
        Whose gradients the closures zero.
    loss : callable
        Takes the entries of a batch and returns the loss, a mean over the examples.
    batch : sequence
        Tensors whose first dimension is the example, such as ``(inputs, labels)``; what is no tensor goes to both.
    fraction : float
        How much of the batch the ascent sees, in (0, 1].

    Returns
    -------
    tuple of callable
        Closures of the whole batch and of the part.

    Raises
    ------
    ValueError
        For a fraction out of range.

    References
    ----------
    R. Ni, P. Chiang, J. Geiping, M. Goldblum, A. G. Wilson, T. Goldstein, K-SAM: Sharpness-Aware Minimization at the
    Speed of SGD, 2022.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(3, 2)
    >>> opt = rsam.RSAM(model.parameters(), rho=0.6, lr=0.1)
    >>> batch = torch.randn(8, 3), torch.randint(2, (8,))
    >>> def loss(x, y):
    ...     return torch.nn.functional.cross_entropy(model(x), y)
    >>> value = opt.step(*rsam.optim.partial_closures(opt, loss, batch, fraction=0.25))
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")

    def closure_of(entries: Sequence[Any]) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(*entries)
            value.backward()
            return value

        return closure

    def cut(entry: Any) -> Any:
        return entry[: max(1, round(fraction * len(entry)))] if isinstance(entry, Tensor) and entry.dim() else entry

    return closure_of(batch), closure_of([cut(entry) for entry in batch])
