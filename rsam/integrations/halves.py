"""Take the first half of a step, for the loops of all frameworks."""

from __future__ import annotations

from typing import Any

import torch

from rsam.optim import RSAM

__all__ = ["ascend", "check_scaler", "needs_gradient", "unwrapped"]


def unwrapped(optimizer: Any) -> RSAM:
    """Return the RSAM within a framework's wrappers, which hold what they wrap as ``optimizer``.

    Raises
    ------
    TypeError
        If there is none; names the class of the innermost.
    """
    while not isinstance(optimizer, RSAM):
        if not hasattr(optimizer, "optimizer"):
            raise TypeError(f"the optimizer must be an rsam.RSAM, got {type(optimizer).__name__}")
        optimizer = optimizer.optimizer
    return optimizer


def needs_gradient(optimizer: RSAM) -> bool:
    """Tell whether the direction of ascent depends on gradients, so that there is a first pass."""
    return optimizer._passes.needs_gradient


def check_scaler(optimizer: RSAM, scaler: torch.amp.GradScaler | None) -> None:
    """Refuse an optimizer that raises for gradients which a scaler skips.

    Raises
    ------
    ValueError
        If the scaler is enabled, and ``nonfinite`` is not ``"skip"``.
    """
    if scaler is not None and scaler.is_enabled() and optimizer.nonfinite != "skip":
        raise ValueError(
            "a gradient scaler finds its scale by gradients that overflow, and skips those steps; "
            'pass nonfinite="skip" to rsam.RSAM'
        )


def ascend(optimizer: RSAM, scaler: torch.amp.GradScaler | None = None) -> None:
    """Ascend to the perturbed weights, from gradients that may be scaled, and clear the gradients."""
    scaled = scaler is not None and scaler.is_enabled() and needs_gradient(optimizer)
    if scaled:
        scaler.unscale_(optimizer)  # type: ignore[union-attr]
    optimizer.first_step(zero_grad=True)
    if scaled:
        scaler.update()  # type: ignore[union-attr]  # so that the second gradient can be unscaled, too
