"""A watch over gradients that were there before a pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NoReturn

import torch
from torch import Tensor

from rsam.geometry.sharded import local

__all__ = ["AFTER_STEP", "IN_CLOSURE", "IN_HALVES", "OldGradients"]

IN_CLOSURE = (
    "the closure leaves gradients that were there before step(closure), or adds to them, and RSAM evaluates it at two "
    "places; the weights are as before the step. Call optimizer.zero_grad() in the closure, before backward(); to "
    "accumulate gradients of several batches, evaluate all of them in the closure (rsam.integrations does it in "
    "Lightning, accelerate and transformers). A wrapper whose step() brings a closure that computes nothing, as "
    "Lightning's in manual optimization, needs first_step() before"
)
IN_HALVES = (
    "the gradients of the second pass were added to those of the first; the weights are as before the step. Call "
    "first_step(zero_grad=True), or zero_grad() before the second backward()"
)
AFTER_STEP = (
    "the gradients of the first pass were added to those of the step before; the weights are as they were. Call "
    "second_step(zero_grad=True), or zero_grad() before the first backward()"
)
# Parameters that are looked at for a small one: biases and norms are nearly always among them.
_LOOKED_AT = 8


class OldGradients:
    """Shows whether a pass starts from gradients of its own; it waits for no device.

    The gradient of one parameter stands for all of them. Autograd is asked whether it added to that; and since it is
    not the only one who adds, NaN may take its place meanwhile. A pass that zeroes gradients replaces or overwrites
    NaN; after any other it is still there, and so in the norm of the gradient.

    Parameters
    ----------
    params : sequence of Tensor
        Parameters whose gradients the pass computes. The smallest of the last few stands for them.
    refusal : str
        Words of the error.
    hidden : bool
        Whether NaN takes the place of the gradient.
    """

    def __init__(self, params: Sequence[Tensor], refusal: str, hidden: bool = False) -> None:
        self._params = params
        self._refusal = refusal
        self._param = min(islice(filter(_may_stand, reversed(params)), _LOOKED_AT), key=Tensor.numel, default=None)
        self._hidden: Tensor | None = None
        self._begun = self._about_to_add = self._added = False
        if self._param is not None:
            gradient = self._param.grad
            assert gradient is not None
            if hidden:
                self._hidden, gradient = gradient, torch.full_like(gradient, torch.nan)
                self._param.grad = gradient
            self._mark, self._version = gradient, _version(gradient)
            # the first also runs where torch.autograd.grad adds to nothing; by the second the sum may be another tensor
            before, after = self._before, self._after
            self._handles = self._param.register_hook(before), self._param.register_post_accumulate_grad_hook(after)

    def _before(self, _: Tensor) -> None:
        if not self._begun:
            self._about_to_add = self._writes() == 0 or self._is_moved()

    def _after(self, _: Tensor) -> None:
        self._begun, self._added = True, self._added or self._about_to_add

    def _is_moved(self) -> bool:
        """Whether NaN is in another tensor by now, as where DistributedDataParallel has made its buckets anew."""
        held = None if self._param is None else self._param.grad
        return held is not None and held is not self._mark and self._hidden is not None and _is_nan(held)

    def _writes(self) -> int | None:
        """How often the gradient was written to; None if it is another one by now."""
        if self._param is None or self._param.grad is not self._mark:
            return None
        return _version(self._mark) - self._version

    def close(self) -> None:
        """Stop watching, and show the gradient again unless the pass has made another in its place."""
        if self._param is not None:
            for handle in self._handles:
                handle.remove()
            if self._hidden is not None and (self._added or self._writes() == 0):
                self._param.grad = self._hidden

    def refuse_added(self) -> None:
        """Refuse gradients that autograd added to.

        Raises
        ------
        RuntimeError
            If it has.
        """
        if self._added:
            self._refuse()

    def refuse_left_or_added(self) -> None:
        """Refuse a pass that has not written to the gradient either.

        Raises
        ------
        RuntimeError
            If the gradient is as it was, or was added to by autograd.
        """
        if self._added or self._writes() == 0:
            self._refuse()

    def refuse_nan(self) -> None:
        """Refuse NaN that comes from the hidden gradient; asks the device.

        Raises
        ------
        RuntimeError
            If the pass added to the gradient.
        """
        if self._hidden is None or not self._writes() or not _is_nan(self._mark):
            return
        # zeroing and adding are two writes, and so are adding and clipping, which makes NaN of all gradients, too
        others = (local(p.grad) for p in self._params if p.grad is not None and p is not self._param)
        if self._writes() == 1 or any(bool(g.isfinite().any()) for g in others):
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self._param is not None and self._hidden is not None:
            self._param.grad = self._hidden
        raise RuntimeError(self._refusal)


def _version(gradient: Tensor) -> int:
    part = local(gradient)  # of a sharded one, which is zeroed through the whole and added to in parts
    return gradient._version + (0 if part is gradient else part._version)


def _is_nan(gradient: Tensor) -> bool:
    return bool(local(gradient).isnan().all())


def _may_stand(p: Tensor) -> bool:
    g = p.grad
    # a gradient of an old precision may stay, but could not be put back
    fits = g is not None and getattr(p, "grad_dtype", p.dtype) in (None, g.dtype)
    return g is not None and fits and p.requires_grad and p.numel() > 0 and g.layout is torch.strided
