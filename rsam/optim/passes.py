"""Take the two halves of a step, call hooks around its passes, and undo everything if one fails."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rsam.errors import NotFinite, StalePlan
from rsam.geometry import Block, Product, all_finite
from rsam.geometry.sharded import local_gradient
from rsam.optim.ascent import DIRECTIONS, Direction, Perturbation
from rsam.optim.backward import NO_BACKWARD, depends_on
from rsam.optim.checks import check_group, check_momentum, check_options_of, nonfinite_message, refuse_sparse
from rsam.optim.groups import space_of
from rsam.optim.hooks import PassHook
from rsam.optim.old_gradients import AFTER_STEP, IN_CLOSURE, IN_HALVES, NO_SECOND_PASS, GradientMark, OldGradients
from rsam.optim.weights import has_radius

if TYPE_CHECKING:
    from rsam.optim.rsam import RSAM

__all__ = ["Passes"]


class Passes:
    """Take the steps of an optimizer, and remember the results of the last one.

    Everything that changes in a step is stored here, so that a wrapper with copies of the optimizer's attributes, as
    Lightning's, shares it.

    Parameters
    ----------
    optimizer : RSAM
        The optimizer that owns these passes.
    """

    def __init__(self, optimizer: RSAM) -> None:
        self.optimizer = optimizer
        self.hooks: list[PassHook] = []
        self.grad_norm: float | None = None
        self.losses: tuple[Any, Any] | None = None
        self.skip = False
        self._options: list[Any] = []  # that were checked
        self._space: Product | None = None
        self._checked: list[Block] | None = None  # the plan for whose manifolds the groups were checked
        self._perturbation = Perturbation()
        self._old: OldGradients | None = None
        self._watches: Counter[tuple[str, int]] = Counter()
        self._in_closure = False
        self._left_gradients = False  # whether a closure ever did
        self._zeros: list[GradientMark] = []
        self._views: dict[Tensor, Tensor] = {}  # gradients before the first pass that are parts of a buffer

    @property
    def pending(self) -> bool:
        """Tell whether a step is between its two halves."""
        return self._perturbation.pending

    def check_options(self) -> None:
        """Refuse misspelt options that were set since the last check."""
        self._options = check_options_of(self.optimizer, self._options)

    @property
    def _direction(self) -> Direction:
        direction = self.optimizer.direction
        # another word is refused with all options, before it is called
        return DIRECTIONS.get(direction, direction) if isinstance(direction, str) else direction  # type: ignore[arg-type]

    @property
    def needs_gradient(self) -> bool:
        """Tell whether the ascent needs a gradient at the weights, and so a first pass."""
        return getattr(self._direction, "needs_gradient", True)

    @property
    def _params(self) -> list[Tensor]:
        return [p for group in self.optimizer.base_optimizer.param_groups for p in group["params"]]

    # -- evaluations ---------------------------------------------------------------------------------------------

    def evaluate(self, closure: Callable[[], Any], kept: bool, watched: bool = False) -> Any:
        """Call a closure as a pass of a step; after an exception everything is as before the step.

        If it is ``watched`` it must start from gradients of its own.
        """
        try:
            for hook in self.hooks:
                hook.before_pass(kept)
            if watched:
                self._watch(IN_CLOSURE, hidden=True)
                self._note_views()
            else:
                self.unwatch()
            loss = self._call(closure)
            if self._old is not None:
                self._old.refuse_left_or_added(loss)
                if callable(self.optimizer.direction):  # it may ignore some gradients, and NaN in them
                    self._old.refuse_nan()
            if not self._left_gradients:
                self._refuse_no_backward(loss)
            return loss
        except BaseException:
            self._abandon()
            raise

    def _call(self, closure: Callable[[], Any]) -> Any:
        self._refuse_in_closure()
        self._in_closure = True
        try:
            with torch.enable_grad():
                return closure()
        finally:
            self._in_closure = False

    def _refuse_in_closure(self) -> None:
        """Refuse a step that the closure of another one takes."""
        if self._in_closure:
            raise RuntimeError(
                "the closure steps the optimizer that evaluates it; let it only zero gradients, compute the loss, call "
                "backward and return the loss"
            )

    def _refuse_no_backward(self, loss: Any) -> None:
        """Refuse a pass that certainly lacks ``backward``; once a pass has left a gradient, accept any.

        A closure may leave out ``backward`` on purpose, for a loss that is not finite or a batch to skip.
        """
        params = self._params
        if not self._lacks_gradient([g for p in params if (g := local_gradient(p)) is not None]):
            self._left_gradients = True
        elif depends_on(loss, params) and bool(loss.isfinite().all()):
            raise RuntimeError(NO_BACKWARD)

    def note_losses(self, first: Any, second: Any) -> None:
        """Remember the losses of both passes, as numbers, unless the step is skipped."""
        if not self.skip:
            self.losses = first, second

    def finish(self, closure: Callable[[], Any]) -> Any:
        """Call a closure as the second pass of a step that :meth:`first_half` began; it may leave the gradients."""
        try:
            if self._old is not None:
                self._old.refuse_added()
            # not hidden, since Lightning's hooks in the closure clip the gradients from before
            self._watch(IN_HALVES, gradients_are_first=False)
            loss = self._call(closure)
            if self._old is not None:
                self._old.refuse_added()
            return loss
        except BaseException:
            self._abandon()
            raise

    def unwatch(self) -> None:
        """Stop watching gradients; to be called before they are cleared, after which nothing can be added to them."""
        if self._old is not None:
            self._old.close()
        self._old = None

    def _watch(self, refusal: str, hidden: bool = False, gradients_are_first: bool = True) -> None:
        """Watch the present gradients, and refuse additions with this message; a pass may add to zeros."""
        self.unwatch()
        if self._are_zero():
            return
        params = self._ascended()
        # subclasses of tensors, such as geoopt's, would ask Python for every attribute
        with torch._C.DisableTorchFunctionSubclass():
            # thorough the first, second, fourth, eighth time and so on: what a loop does it does in every step, until
            # parameters are added or unfrozen
            kind = refusal, sum(p.requires_grad for p in params)
            seen = self._watches[kind] + 1
            thorough = gradients_are_first and seen & (seen - 1) == 0
            self._old = OldGradients(params, refusal, hidden, thorough)
        if self._old.watched:
            self._watches[kind] = seen

    def _note_views(self) -> None:
        """Take note of the gradients that are parts of a buffer."""
        with torch._C.DisableTorchFunctionSubclass():
            self._views = {p: g for p in self._params if (g := p.grad) is not None and g._is_view()}

    def _clear(self, params: list[Tensor]) -> None:
        """Clear gradients between the passes; where the first pass kept a part of a buffer, by setting it to zero."""
        for p in params:
            if self._views and (g := p.grad) is not None and g is self._views.get(p):
                g.zero_()
            else:
                p.grad = None
        self._views = {}

    def note_zeros(self) -> None:
        """Take note that all gradients are zero now."""
        with torch._C.DisableTorchFunctionSubclass():
            self._zeros = [GradientMark(p) for p in self._ascended() if p.grad is not None]

    def _are_zero(self) -> bool:
        """Tell whether no gradient was made or written to since :meth:`note_zeros`."""
        with torch._C.DisableTorchFunctionSubclass():
            if not self._zeros or any(mark.writes() != 0 for mark in self._zeros):
                return False
            return len(self._zeros) == sum(p.grad is not None for p in self._ascended())

    def _lacks_gradient(self, gradients: list[Tensor]) -> bool:
        """Tell whether there are no gradients, or only zeros that no pass has written to."""
        # what is written through ``.data`` or by a CUDA graph shows in the values only
        return not gradients or (self._are_zero() and not any(bool(g.any()) for g in gradients))

    def _ascended(self) -> list[Tensor]:
        groups = self.optimizer.base_optimizer.param_groups
        return [p for group in groups if has_radius(group) for p in group["params"]]

    # -- the first half ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def first_half(self, hooked: bool, clear: bool = False) -> None:
        """Save the weights, ascend if this step does, and ``clear`` the gradients of the ascent."""
        self._refuse_in_closure()
        if self.pending:
            raise RuntimeError(
                "first_step() twice; call second_step() or restore() in between. What leaves a step half done: a "
                "gradient scaler whose step() skips the second half, after which call restore(); a wrapper whose "
                "step() does nothing while gradients are accumulated, as accelerate's, with which call both halves for "
                "the last of the accumulated batches only"
            )
        try:
            self._check_and_save()
            space = self._space
            if space is not None and space.blocks is not self._checked:  # a parameter may be on another manifold
                for g in range(len(self.optimizer.param_groups)):
                    self.optimizer._check_group(g, anew=True)
                self._checked = space.blocks
            if self.optimizer.ascends:
                if self._old is not None:
                    self._old.refuse_added()
                self._ascend()
                if clear and self._space is not None:
                    self.unwatch()
                    self._clear(self._space.params)
                else:
                    self._watch(IN_HALVES)
            for hook in self.hooks if hooked else ():
                hook.before_pass(not self.needs_gradient)
        except BaseException:
            self._abandon()
            raise

    def _check_and_save(self) -> None:
        optimizer = self.optimizer
        self.losses = self.grad_norm = None
        self.skip = False
        groups = optimizer.base_optimizer.param_groups
        if any("rho" not in group for group in groups):  # groups that were added through the base
            optimizer._fill_options()
        for g, group in enumerate(groups):
            rho = group["rho"]
            # may have been set since the group was checked
            if not isinstance(rho, float | int) or not 0 <= rho < math.inf or group["adaptive"]:
                check_group(optimizer.base_optimizer, groups, g)
            if optimizer.direction == "momentum" and rho > 0:
                check_momentum(optimizer.base_optimizer, group, g)
        # subclasses of tensors, such as geoopt's, would ask Python for every attribute
        with torch._C.DisableTorchFunctionSubclass():
            self._refuse_sparse()
            self._space = space_of(groups, self._space, live=True)
            try:
                self._perturbation.save(self._space)
            except StalePlan:
                self._space.update()
                self._perturbation.save(self._space)

    def _ascend(self) -> None:
        optimizer = self.optimizer
        base = optimizer.base_optimizer
        with torch._C.DisableTorchFunctionSubclass():
            weights = self._perturbation.weights(base, self.needs_gradient, optimizer.radius)
        replicas = optimizer.local_ascent
        if not weights.blocks:
            if self.needs_gradient and self._space and self._space.shards:
                raise RuntimeError(
                    "no parameter has a gradient to ascend along, as where a sharded model holds gradients back; call "
                    "model.set_requires_gradient_sync(True) before both passes"
                )
            if replicas is not None:  # the other processes wait
                replicas.spread(torch.zeros((), device=base.param_groups[0]["params"][0].device))
            return
        spread = None if replicas is None else replicas.spread
        length = self._perturbation.ascend(weights, self._direction, optimizer.ascent == "exponential", spread)
        if self.needs_gradient:
            self.grad_norm = length
        elif not math.isfinite(length):
            raise NotFinite("the direction of ascent is not finite; look at the momentum of the base optimizer")
        self.skip = not math.isfinite(length) and self._skips(length)

    # -- the second half -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def second_half(self, in_halves: bool = False) -> None:
        """Bring gradients and weights back, and step the base optimizer.

        With ``in_halves`` the next step's first gradient is not that of a closure, and is watched from now on.
        """
        self._refuse_in_closure()
        optimizer, base = self.optimizer, self.optimizer.base_optimizer
        space = self._perturbation.space
        assert space is not None
        try:
            if self._old is not None:
                self._old.refuse_added()
            if in_halves:
                self._refuse_one_pass(space)
            with torch._C.DisableTorchFunctionSubclass():
                self._refuse_sparse()
                found = self._perturbation.bring_back(optimizer.transport, optimizer.ascent == "exponential")
                joined = self._joined(space)
            if optimizer.local_ascent is not None and not self.skip:
                optimizer.local_ascent.average(space.params)
                found = [g for g in space.gradients() if g is not None]
            skip = self.skip or (not all_finite(found + joined, space.shards) and self._skips())
        finally:
            self.restore()
        if not skip:
            try:
                base.step()
            except BaseException:
                self._perturbation.put_back()
                raise
            position = (base.param_groups[0].get("steps_since_ascent", 0) + 1) % optimizer.every
            for group in base.param_groups:  # also in groups added since, as that of the first may be removed
                group["steps_since_ascent"] = position
        self.skip = skip
        self._perturbation.forget()
        if in_halves:
            self._watch(AFTER_STEP)
        else:
            self.unwatch()

    def _joined(self, space: Product) -> list[Tensor]:
        """Return gradients of parameters that were frozen or in no group in the first half."""
        params = self._params
        if len(params) == len(space.params):
            return []
        known = set(map(id, space.params))
        return [g for p in params if id(p) not in known and (g := local_gradient(p)) is not None]

    def _refuse_one_pass(self, space: Product) -> None:
        """Refuse a second half after an ascent if there is no other gradient since."""
        ascended = self.grad_norm is not None if self.needs_gradient else self.optimizer.ascends
        if not ascended or self.skip or self.optimizer.local_ascent is not None:
            return  # in another process there may be one
        if self.needs_gradient and self._lacks_gradient([g for g in space.gradients() if g is not None]):
            raise RuntimeError(NO_SECOND_PASS)
        if self._old is not None:
            self._old.refuse_all_left()

    def _skips(self, length: float = math.inf) -> bool:
        """Apply the policy to a gradient that is not finite: skip the step, or raise."""
        if self._old is not None:
            self._old.refuse_nan()
        if self.optimizer.nonfinite == "raise":
            several = self.optimizer.local_ascent is not None or bool(self._space and self._space.shards)
            message = nonfinite_message(self.optimizer.param_groups, length, several)
            raise NotFinite(message + ("" if self._old is None else self._old.why_nan()))
        return True

    def _refuse_sparse(self) -> None:
        for group in self.optimizer.base_optimizer.param_groups:
            for p in group["params"]:
                if (g := p.grad) is not None and g.is_sparse:
                    refuse_sparse(self.optimizer.base_optimizer.param_groups, p)

    # -- undoing -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the weights from before the first half, by copy; do nothing if there was none."""
        if self.pending:
            self._perturbation.restore()
            self.unwatch()
            self._end()

    def _abandon(self) -> None:
        """Leave everything as it was before the step."""
        self.unwatch()
        if not self.pending:
            self._end()
        self.restore()

    def _end(self) -> None:
        for hook in self.hooks:
            hook.after_passes()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_old": None, "_zeros": [], "_views": {}}
        if not self.pending:  # a copied optimizer does not need the copies of the last step
            state |= {"_perturbation": Perturbation(), "_space": None, "_checked": None}
        return state
