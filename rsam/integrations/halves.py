"""Take the first half of a step, for the loops of all frameworks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from rsam.optim import RSAM

__all__ = ["Writes", "ascend", "check_scaler", "in_new_containers", "needs_gradient", "unwrapped"]


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


def in_new_containers(batch: Any) -> Any:
    """Return a batch in new containers, in which a pass may replace and drop entries; tensors are the same."""
    return tree_map(_in_new_container, batch)


def _in_new_container(leaf: Any) -> Any:
    """Copy what torch does not look into: a dataclass, a ``BatchEncoding``, a graph."""
    if isinstance(leaf, Tensor):
        return leaf
    try:
        return copy.copy(leaf)
    except TypeError:  # a generator, an open file
        return leaf


def _tensors(batch: Any) -> Iterator[Tensor]:
    for leaf in tree_flatten(batch)[0]:
        entries = leaf if isinstance(leaf, Mapping) else getattr(leaf, "__dict__", {})
        held = [leaf] if isinstance(leaf, Tensor) else tree_flatten(dict(entries))[0]
        yield from (x for x in held if isinstance(x, Tensor))


class Writes:
    """Notice tensors of batches that each pass changes in place, so that the second sees another batch.

    The device is only asked about tensors that were written to.
    """

    def __init__(self) -> None:
        self._versions: list[tuple[Tensor, int]] = []
        self._written: list[tuple[Tensor, Tensor]] = []

    def watch(self, batch: Any) -> None:
        """Watch the tensors of a batch, before its first pass."""
        self._versions += [(x, x._version) for x in _tensors(batch) if not x.is_inference()]

    def note(self) -> None:
        """Copy what was written to, between the passes."""
        self._written = [(x, x.detach().clone()) for x, version in self._versions if x._version != version]

    def refuse(self) -> None:
        """Refuse a second pass that has changed a batch again; what it leaves as it was may be written, as by a mask.

        Raises
        ------
        RuntimeError
            If it has.
        """
        if any(bool(((x != copy) & (x == x)).any()) for x, copy in self._written):
            raise RuntimeError(
                "each pass changes its batch in place, as timm's Mixup does, so that the second saw another batch than "
                "the first; the weights are as before the step. Let the loss write to a copy: x = x.clone()"
            )
