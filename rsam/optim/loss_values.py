"""Read the losses that closures return."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["are_one", "number"]


def number(loss: Any) -> Any:
    """Return a copy of a loss, without waiting for the device; None if it is no number."""
    if isinstance(loss, Tensor):
        return loss.detach().clone() if loss.numel() == 1 else None
    return loss if isinstance(loss, float | int) else None


def are_one(first: Any, second: Any) -> bool:
    """Tell whether two losses are the same number in memory, as where a CUDA graph computes both."""
    both = isinstance(first, Tensor) and isinstance(second, Tensor)
    return both and first.numel() == second.numel() == 1 and first.data_ptr() == second.data_ptr()
