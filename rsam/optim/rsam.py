r"""Riemannian sharpness-aware minimisation.

::

    r   = raise(w, g)                    Riemannian gradient at w, per parameter
    n   = sqrt(sum_k g_k . r_k)          one norm over the whole product manifold
    e_k = rho_k r_k / n                  steepest ascent within the ball of radius rho
    w~  = R_w(e)                         ascent
    g~  = gradient of the loss at w~, brought back to w
    w  <- step of the base optimizer from w with g~
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from rsam import geometry
from rsam.errors import NotFinite
from rsam.geometry import UnsupportedOperation
from rsam.geometry.lists import all_finite
from rsam.optim.checks import (
    check_base,
    check_group,
    check_options,
    nonfinite_message,
    refuse_sparse,
    warn_of_wrong_steps,
)
from rsam.optim.hooks import PassHook
from rsam.optim.names import named
from rsam.optim.perturbation import Transport, ascend, bring_back, gradient_direction, scale
from rsam.optim.sgd import RiemannianSGD
from rsam.optim.snapshot import Snapshot
from rsam.optim.wrapper import WrappingOptimizer

__all__ = ["RSAM"]

Ascent = Literal["retraction", "exponential"]
Nonfinite = Literal["raise", "skip"]


@dataclass
class _Pending:
    """A step between its two halves."""

    params: list[Tensor] = field(default_factory=list)  # all that the base may write to
    # perturbed parameters on manifolds, where they were, and the tangents along which they went
    curved: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    skip: bool = False


class RSAM(WrappingOptimizer):
    r"""Sharpness-aware minimisation that follows the manifolds of the parameters.

    On plain parameters it is the SAM of Foret et al. 2021 (eq. 2), with ``adaptive=True`` the ASAM of Kwon et al.
    2021 (Algorithm 1); on geoopt parameters both steps follow the manifold (Yun and Yang, NeurIPS 2023, Algorithm 1).
    ``rho=0`` is the base optimizer, bitwise, with one evaluation of the closure.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them, as for any optimizer. Groups may set ``rho`` and ``adaptive``.
    base_optimizer : type
        Class of a torch or geoopt optimizer, which owns the step. Parameters on manifolds need one that retracts:
        :class:`rsam.optim.RiemannianSGD`, :class:`rsam.optim.RiemannianAdam`, geoopt's, or one with a true
        attribute ``retracts``.
    rho : float
        Radius of the perturbation in the metric, not negative; per group, settable between steps as ``lr`` is. A
        group with 0 is not perturbed, its gradient still counts in the norm.
    adaptive : bool
        Scale-invariant perturbation of ASAM; plain parameters only.
    transport : {"vector", "pullback", "project"}
        How the gradient at the perturbed point comes back: as a tangent vector carried along the ascent and lowered;
        as the exact gradient of the loss after the retraction, :math:`(D R_w(e))^\top \tilde g`; or as it is, to be
        projected by the base optimizer (Truong et al. 2023). All three agree on plain parameters.
    ascent : {"retraction", "exponential"}
        The curve along which the weights are perturbed.
    nonfinite : {"raise", "skip"}
        What to do about a gradient that is not finite, in either pass: raise :exc:`rsam.NotFinite`, or skip the step.
        The weights stay as they were in both cases.
    **base_kwargs
        Arguments of the base optimizer.

    Raises
    ------
    ValueError
        For an option out of range, a base optimizer that would step a parameter off its manifold, or ``adaptive`` on
        one.
    UnsupportedOperation
        For a parameter on a manifold that :mod:`rsam.geometry` cannot treat; names both.

    See Also
    --------
    rsam.optim.LambdaRho : a schedule of ``rho``.
    rsam.nn.first_pass_only : keeps batch-norm statistics out of the second pass.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    >>> opt = rsam.RSAM([x], rho=0.05, lr=0.1)
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = -x[0]
    ...     loss.backward()
    ...     return loss
    >>> opt.step(closure)
    tensor(-0.6000, grad_fn=<NegBackward0>)
    >>> bool(x[0] > 0.6)
    True
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., torch.optim.Optimizer] = RiemannianSGD,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        transport: Transport = "vector",
        ascent: Ascent = "retraction",
        nonfinite: Nonfinite = "raise",
        **base_kwargs: Any,
    ) -> None:
        check_options(transport, ascent, nonfinite)
        base = base_optimizer(params, **base_kwargs)
        check_base(base)
        self.transport = transport
        self.ascent = ascent
        self.nonfinite = nonfinite
        self._pending: _Pending | None = None
        self._snapshot = Snapshot()
        self._hooks: list[PassHook] = []
        self._grad_norm: Tensor | None = None
        self._losses: tuple[Any, Any] | None = None
        self._warned: set[str] = set()
        super().__init__(base, {"rho": rho, "adaptive": adaptive})

    @classmethod
    def from_optimizer(
        cls,
        optimizer: torch.optim.Optimizer,
        *,
        rho: float = 0.05,
        adaptive: bool = False,
        transport: Transport = "vector",
        ascent: Ascent = "retraction",
        nonfinite: Nonfinite = "raise",
    ) -> RSAM:
        """Wrap an optimizer that exists already, state and all, as ``base_optimizer``.

        Arguments are those of the class; ``rho`` and ``adaptive`` are set in all of its groups.

        Examples
        --------
        >>> import torch, rsam
        >>> sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        >>> rsam.RSAM.from_optimizer(sgd, rho=0.1).param_groups is sgd.param_groups
        True
        """
        check_base(optimizer)
        for group in optimizer.param_groups:
            group.update(rho=rho, adaptive=adaptive)
        options: dict[str, Any] = {"transport": transport, "ascent": ascent, "nonfinite": nonfinite}
        return cls(optimizer.param_groups, lambda params: optimizer, rho=rho, adaptive=adaptive, **options)

    def _check_group(self, index: int) -> None:
        check_group(self.base_optimizer, self.param_groups[index], index)
        warn_of_wrong_steps(self.base_optimizer, self.param_groups[index], self._warned)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable
            Zeroes the gradients, computes the loss, calls ``backward``, returns the loss; called twice. Without it,
            after :meth:`first_step`, this is :meth:`second_step`.

        Returns
        -------
        Tensor or None
            The loss at the weights before the step.

        Raises
        ------
        RuntimeError
            Without a closure; for a sparse gradient.
        NotFinite
            For a gradient that is not finite, naming the first such parameter; a RuntimeError.
            The weights are as they were before the step, as after any exception in here.
        """
        if closure is None:
            if self._pending is None:
                raise RuntimeError(
                    "RSAM.step needs a closure that zeroes gradients, computes the loss, calls backward and returns "
                    "the loss; or call first_step() and second_step() yourself"
                )
            self.second_step()
            return None
        if self._pending is not None:
            raise RuntimeError("step(closure) after first_step(); call second_step() or restore() first")
        for hook in self._hooks:
            hook.before_first_pass()
        try:
            with torch.enable_grad():
                loss = closure()
        except BaseException:
            self._end_passes()
            raise
        self.first_step()
        perturbed = loss
        assert self._pending is not None
        skip = self._pending.skip
        if self._perturbs() and not skip:
            try:
                with torch.enable_grad():
                    perturbed = closure()
            except BaseException:
                self.restore()
                raise
        self.second_step()
        if not skip:
            self._losses = (_number(loss), _number(perturbed))
        return loss

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Ascend to the perturbed weights, from gradients of the loss at the weights.

        Parameters
        ----------
        zero_grad : bool
            Clear the gradients afterwards.

        Raises
        ------
        RuntimeError
            If called twice, or for a sparse gradient.
        NotFinite
            For a gradient that is not finite; a RuntimeError.
        """
        if self._pending is not None:
            raise RuntimeError("first_step() twice; call second_step() or restore() in between")
        self._losses = None
        self._grad_norm = None
        self._fill_options()
        pending = _Pending()
        for g, group in enumerate(self.param_groups):
            if not group["rho"] >= 0 or group["adaptive"]:  # may have been set since the group was checked
                check_group(self.base_optimizer, group, g)
            pending.params += [p for p in group["params"] if p.requires_grad or p.grad is not None]
        self._snapshot.take(pending.params)
        refuse_sparse(self.param_groups)
        self._pending = pending
        try:
            self._ascend(pending)
            for hook in self._hooks:
                hook.before_second_pass()
        except BaseException:
            self.restore()
            raise
        if zero_grad:
            self.zero_grad()

    def _skips(self) -> bool:
        """Answer a gradient that is not finite by the policy: skip the step, or raise."""
        if self.nonfinite == "raise":
            raise NotFinite(nonfinite_message(self.param_groups))
        return True

    def _perturbs(self) -> bool:
        return any(group["rho"] > 0 for group in self.param_groups)

    def _ascend(self, pending: _Pending) -> None:
        """Move the parameters, and note in ``pending`` what the way back needs."""
        held = [(p, p.grad, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not held or not self._perturbs():
            return
        params, gradients = [p for p, _, _ in held], [g for _, g, _ in held]
        directions, norm = gradient_direction(params, gradients, [group["adaptive"] for _, _, group in held])
        self._grad_norm = norm
        if not torch.isfinite(norm):
            pending.skip = self._skips()
            return
        moved = [(p, r, group["rho"]) for (p, _, group), r in zip(held, directions, strict=True) if group["rho"] > 0]
        starts = [p for p, _, _ in moved]
        ascents = scale([r for _, r, _ in moved], [rho for _, _, rho in moved], norm)
        copies = {id(p): copy for p, copy in zip(pending.params, self._snapshot.copies, strict=True)}
        pending.curved = [
            (p, copies[id(p)], e) for p, e in zip(starts, ascents, strict=True) if not geometry.is_plain(p)
        ]
        try:
            ascend(starts, ascents, exact=self.ascent == "exponential")
        except UnsupportedOperation as error:
            raise named(error, self.param_groups, [p for p, _, _ in pending.curved]) from error

    @torch.no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        """Return to the weights and step from there, with gradients of the loss at the perturbed weights.

        Parameters
        ----------
        zero_grad : bool
            Clear the gradients afterwards.

        Raises
        ------
        RuntimeError
            Without a :meth:`first_step`, or for a sparse gradient.
        NotFinite
            For a gradient that is not finite; a RuntimeError.
        """
        if self._pending is None:
            raise RuntimeError("second_step() without first_step()")
        pending = self._pending
        try:
            refuse_sparse(self.param_groups)
            self._bring_back(pending)
        finally:
            self.restore()
        finite = all_finite([p.grad for group in self.param_groups for p in group["params"] if p.grad is not None])
        if not pending.skip and (finite or not self._skips()):
            try:
                self.base_optimizer.step()
                self._opt_called = True  # what torch's schedulers look for, in loops that never call step
            except BaseException:
                self._snapshot.put_back(pending.params)
                raise
        if zero_grad:
            self.zero_grad()

    def _bring_back(self, pending: _Pending) -> None:
        """Replace gradients at the perturbed points by covectors at the weights."""
        # plain ones first: one of them may be the curvature of a manifold
        plain = [
            (p, copy) for p, copy in zip(pending.params, self._snapshot.copies, strict=True) if geometry.is_plain(p)
        ]
        if plain:
            torch._foreach_copy_([p for p, _ in plain], [copy for _, copy in plain])
        curved = [(p, p.grad, origin, e) for p, origin, e in pending.curved if p.grad is not None]
        if not curved:
            return
        params, gradients = [c[0] for c in curved], [c[1] for c in curved]
        origins, ascents = [c[2] for c in curved], [c[3] for c in curved]
        manifolds = [geometry.manifold_of(p) for p in params]
        exact = self.ascent == "exponential"
        try:
            covectors = bring_back(params, gradients, origins, ascents, manifolds, self.transport, exact)
        except UnsupportedOperation as error:
            raise named(error, self.param_groups, params) from error
        torch._foreach_copy_(gradients, covectors)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights back where they were before :meth:`first_step` (by copy); nothing to do otherwise."""
        if self._pending is None:
            return
        self._snapshot.put_back(self._pending.params)
        self._pending = None
        self._end_passes()

    def _end_passes(self) -> None:
        for hook in self._hooks:
            hook.after_second_pass()

    @property
    def sharpness(self) -> float | None:
        """Perturbed loss minus loss of the last ``step(closure)``; None before one, or if the closure returned none."""
        if self._losses is None or any(loss is None for loss in self._losses):
            return None
        return float(self._losses[1]) - float(self._losses[0])

    @property
    def grad_norm(self) -> float | None:
        """Riemannian norm of the gradient in the last first pass; None before one, or with every ``rho`` 0."""
        return None if self._grad_norm is None else float(self._grad_norm)

    def register_pass_hook(self, hook: PassHook) -> None:
        """Have a hook told where the two passes of each step begin and end."""
        self._hooks.append(hook)


def _number(loss: Any) -> Any:
    """A loss to keep, without asking the device for it; None for what is no number."""
    if isinstance(loss, Tensor):
        return loss.detach().clone() if loss.numel() == 1 else None
    return loss if isinstance(loss, float | int) else None
