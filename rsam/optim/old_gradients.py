"""Notice whether a pass adds to gradients from before it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef

from rsam.geometry.sharded import local
from rsam.optim.backward import SEE_GUIDE, why_left
from rsam.optim.callers import is_called_from_framework

__all__ = ["AFTER_STEP", "IN_CLOSURE", "IN_HALVES", "NO_SECOND_PASS", "GradientMark", "OldGradients"]

IN_CLOSURE = (
    "the closure adds to gradients that were there before step(closure); the weights are as before the step. Call "
    "optimizer.zero_grad() in the closure, before backward(); to accumulate gradients of several batches, evaluate all "
    f"of them in the closure; {SEE_GUIDE}"
)
_IN_FRAMEWORK = ". In Lightning, accelerate and transformers rsam.integrations does that"
IN_HALVES = (
    "the gradients of the second pass were added to those of the first; the weights are as before the step. Call "
    "first_step(zero_grad=True), or zero_grad() before the second backward()"
)
AFTER_STEP = (
    "the gradients of the first pass were added to those of the step before; the weights are as they were. Call "
    "second_step(zero_grad=True), or zero_grad() before the first backward()"
)
NO_SECOND_PASS = (
    "there is no gradient of a second pass; the weights are as before the step. After first_step() evaluate the loss "
    "again, at the perturbed weights, and call backward(); to leave a step out, call restore() instead of second_step()"
)
_READ = ". Or the closure reads gradients of the step before, one of which is NaN meanwhile: copy them before the step"
# Number of parameters among which a small one is chosen: these nearly always include biases and norms.
_LOOKED_AT = 8


class GradientMark:
    """Watch that tells whether the gradient of a parameter was written to or replaced since.

    The parameter must have a gradient; the watch does not keep it alive.
    """

    def __init__(self, param: Tensor) -> None:
        assert param.grad is not None
        self.param = param
        self._gradient, self._version = TensorWeakRef(param.grad), _version(param.grad)

    def writes(self) -> int | None:
        """Return how often the gradient was written to; None if it is another one by now, or none."""
        gradient = self.param.grad
        return None if gradient is None or gradient is not self._gradient() else _version(gradient) - self._version


class _Watched(GradientMark):
    """Watch that also tells, by hooks of autograd, whether the gradient was added to.

    With ``hidden``, NaN replaces the gradient meanwhile, unless it is a part of a buffer: what is done to the buffer
    must reach it. With ``thorough``, the device is asked about gradients in one buffer, for which torch counts the
    writes to all of them together.
    """

    def __init__(self, param: Tensor, hidden: bool, thorough: bool) -> None:
        assert param.grad is not None
        self.hidden: Tensor | None = None
        self._kept = param.grad.clone() if hidden and param.grad._is_view() else None
        if hidden and self._kept is None:
            self.hidden, param.grad = param.grad, torch.full_like(param.grad, torch.nan)
        super().__init__(param)
        self._thorough = thorough
        self._added = self._begun = self._about_to_add = False
        # the first also runs where torch.autograd.grad adds to nothing; by the second the sum may be another tensor
        before, after = _weakly(self._before), _weakly(self._after)
        handles = param.register_hook(before), param.register_post_accumulate_grad_hook(after)
        self._stop = weakref.finalize(self, _remove, handles)

    @property
    def added(self) -> bool:
        """Tell whether the gradient is a sum that autograd added to, and not cleared since."""
        return self._added and self.param.grad is not None

    def _before(self) -> None:
        if self.param.grad is None:  # what came before is cleared
            self._added = self._begun = False
        if not self._begun:
            self._about_to_add = self._is_left()

    def _after(self) -> None:
        self._begun, self._added = True, self._added or self._about_to_add

    def _is_left(self) -> bool:
        """Tell whether the gradient is still there, where DistributedDataParallel may have put it."""
        held, writes = self.param.grad, self.writes()
        if held is None:
            return False
        if writes is None:  # perhaps copied, as when the buckets are made anew
            if self._kept is not None:
                return torch.equal(local(held), local(self._kept))
            return self.hidden is not None and _is_nan(held)
        left = writes == 0 or (self._thorough and local(held)._is_view())
        return left and (self.hidden is not None or bool(local(held).any()))  # a pass may add to zeros

    def show(self) -> None:
        """Put the hidden gradient back."""
        if self.hidden is not None:
            self.param.grad = self.hidden

    def close(self) -> None:
        """Stop watching, and show the gradient again unless the pass has made another in its place."""
        self._stop()
        if self.added or self.writes() == 0:
            self.show()


class OldGradients:
    """Watch that shows whether a pass starts from cleared gradients, in most steps without waiting for the device.

    It watches the gradient of one parameter, which represents all. A hook of autograd notices additions. Since users
    may add too, the gradient may be replaced by NaN meanwhile. A pass that clears gradients replaces or overwrites the
    NaN. After any other pass it is still there, and makes the norm of the gradient NaN.

    Parameters
    ----------
    params : sequence of Tensor
        Parameters whose gradients the pass computes; the smallest of the last few is watched.
    refusal : str
        Message of the error.
    hidden : bool
        Whether NaN replaces the gradient, unless it is a part of a buffer.
    thorough : bool
        Watch all gradients, since a pass may zero only some of them, and ask the device where autograd cannot tell: a
        write to one gradient in a buffer (``gradient_as_bucket_view=True`` of DistributedDataParallel) looks like a
        write to all in it. This takes microseconds per gradient. A few steps are enough, since a loop does the same in
        every step.

    Attributes
    ----------
    watched : list
        What is watched; nothing if there are no gradients.
    """

    def __init__(self, params: Sequence[Tensor], refusal: str, hidden: bool = False, thorough: bool = False) -> None:
        self._params = params
        self._refusal = refusal
        one = min(islice(filter(_may_stand, reversed(params)), _LOOKED_AT), key=Tensor.numel, default=None)
        self.watched = [] if one is None else [_Watched(one, hidden, thorough)]
        self._sizes: Sequence[Tensor] = ()
        if thorough and self.watched:
            self.watched += [_Watched(p, False, thorough) for p in params if p is not one and _may_stand(p)]
            self._sizes = () if hidden else self._measure()

    def _measure(self) -> Sequence[Tensor]:
        return torch._foreach_norm([local(w.param.grad) for w in self.watched])

    def close(self) -> None:
        """Stop watching, and show the gradient again unless the pass has made another in its place."""
        for watched in self.watched:
            watched.close()

    def refuse_added(self) -> None:
        """Refuse gradients that autograd added to.

        Raises
        ------
        RuntimeError
            If it has.
        """
        if any(watched.added for watched in self.watched):
            self._refuse()

    def refuse_left_or_added(self, loss: Any) -> None:
        """Refuse a pass that has not written to the gradient either.

        Parameters
        ----------
        loss : object
            What the closure returned, from which the error tells what was forgotten.

        Raises
        ------
        RuntimeError
            If the gradient is as it was, or was added to by autograd.
        """
        if self.watched and self.watched[0].writes() == 0:
            self._refuse(why_left(loss, [self.watched[0].param]))
        self.refuse_added()

    def refuse_all_left(self) -> None:
        """Refuse a pass after which no gradient is new, if this is ``thorough``; asks the device only in doubt.

        Their norms are compared, too: what is written through ``.data`` or by a CUDA graph shows in nothing else.

        Raises
        ------
        RuntimeError
            If all gradients are as they were, and no parameter has got one.
        """
        if not self._sizes or any(watched.writes() != 0 for watched in self.watched):
            return
        has_more = sum(p.grad is not None for p in self._params) > len(self.watched)
        if not has_more and all(map(torch.equal, self._sizes, self._measure())):
            raise RuntimeError(NO_SECOND_PASS)

    def refuse_nan(self) -> None:
        """Refuse NaN that comes from the hidden gradient; waits for the device.

        Raises
        ------
        RuntimeError
            If the pass added to the gradient.
        """
        if not self.watched or self.watched[0].hidden is None:
            return
        param, writes = self.watched[0].param, self.watched[0].writes()
        if not writes or param.grad is None or not _is_nan(param.grad):
            return
        # zeroing and adding are two writes; so are adding and clipping, after which all gradients are NaN
        others = (local(p.grad) for p in self._params if p.grad is not None and p is not param)
        if writes == 1 or any(bool(g.isfinite().any()) for g in others):
            self._refuse()

    def why_nan(self) -> str:
        """Say what else may have made a gradient NaN: a pass that has read the one that is hidden."""
        if not self.watched or self.watched[0].hidden is None or self.watched[0].writes() is not None:
            return ""
        gradient = self.watched[0].param.grad
        return _READ if gradient is not None and _is_nan(gradient) else ""

    def _refuse(self, message: str | None = None) -> NoReturn:
        self.watched[0].show()
        if message is None:
            in_framework = self._refusal is IN_CLOSURE and is_called_from_framework()
            message = self._refusal + (_IN_FRAMEWORK if in_framework else "")
        raise RuntimeError(message)


def _weakly(method: Callable[[], None]) -> Callable[[Tensor], None]:
    """Make a hook of a method whose object it does not keep alive.

    torch keeps the hooks of a parameter where the garbage collector does not see that they refer to it.
    """
    found = weakref.WeakMethod(method)

    def hook(_: Tensor) -> None:
        if (alive := found()) is not None:
            alive()

    return hook


def _remove(handles: Sequence[Any]) -> None:
    for handle in handles:
        handle.remove()


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
