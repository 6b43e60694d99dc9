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

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from rsam.errors import NotFinite
from rsam.geometry import Product, all_finite
from rsam.geometry.blocks import StalePlan
from rsam.optim.ascent import DIRECTIONS, Direction, Perturbation, Radius, Transport
from rsam.optim.checks import (
    check_base,
    check_group,
    check_momentum,
    check_options,
    nonfinite_message,
    refuse_sparse,
    warn_of_wrong_steps,
)
from rsam.optim.passes import PassHook
from rsam.optim.riemannian import space_of
from rsam.optim.sgd import RiemannianSGD
from rsam.optim.wrapper import WrappingOptimizer

__all__ = ["RSAM"]

Ascent = Literal["retraction", "exponential"]
Nonfinite = Literal["raise", "skip"]


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
        group with 0 is not perturbed, and its gradient does not count in the norm.
    adaptive : bool
        Scale-invariant perturbation of ASAM; plain parameters only.
    transport : {"vector", "pullback", "project"}
        How the gradient at the perturbed point comes back: as a tangent vector carried along the ascent and lowered;
        as the exact gradient of the loss after the retraction, :math:`(D R_w(e))^\top \tilde g`; or as it is, to be
        projected by the base optimizer (Truong et al. 2023). All three agree on plain parameters.
    ascent : {"retraction", "exponential"}
        The curve along which the weights are perturbed.
    direction : {"gradient", "momentum"} or callable
        Which way to ascend: along the gradient; along the base optimizer's momentum, which costs no gradient, so that
        the closure runs once, at the perturbed weights (Momentum-SAM, Becker et al. 2024); or along what a function of
        :class:`rsam.optim.Weights` returns, a list of tangents. A function with a false attribute ``needs_gradient``
        ascends before the closure runs, too.
    radius : {"product", "parameter", "point"}
        Which ball the ascent fills: one over the product of all parameters; or one for each parameter, or for each
        point (a kernel, a row of a batch, a whole plain tensor), each of which moves by ``rho`` in its own metric.
    every : int
        Ascend in every so many steps (Liu et al. 2022, without reuse); those between are the base optimizer's, and
        cost one evaluation.
    nonfinite : {"raise", "skip"}
        What to do about a gradient that is not finite, in either pass: raise :exc:`rsam.NotFinite`, or skip the step.
        The weights stay as they were in both cases. A momentum that is not finite is raised in any case.
    **base_kwargs
        Arguments of the base optimizer.

    Raises
    ------
    ValueError
        For an option out of range, a base optimizer that would step a parameter off its manifold, ``adaptive`` on
        one, or ``direction="momentum"`` over a base optimizer or group without momentum.
    UnsupportedOperation
        For a parameter on a manifold that :mod:`rsam.geometry` cannot treat; names both.

    See Also
    --------
    rsam.optim.LambdaRho : a schedule of ``rho``.
    rsam.optim.partial_closures : ascend along the gradient of a part of each batch.
    rsam.nn.update_statistics_once : keeps batch-norm statistics out of one of the two passes.

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
        direction: Literal["gradient", "momentum"] | Direction = "gradient",
        radius: Radius = "product",
        every: int = 1,
        nonfinite: Nonfinite = "raise",
        **base_kwargs: Any,
    ) -> None:
        check_options(transport, ascent, direction, radius, every, nonfinite)
        base = base_optimizer(params, **base_kwargs)
        check_base(base)
        self.transport = transport
        self.ascent = ascent
        self.direction = direction
        self.radius = radius
        self.every = every
        self.nonfinite = nonfinite
        self._space: Product | None = None
        self._perturbation = Perturbation()
        self._skip = False
        self._hooks: list[PassHook] = []
        self._grad_norm: float | None = None
        self._losses: tuple[Any, Any] | None = None
        self._warned: set[str] = set()
        super().__init__(base, {"rho": rho, "adaptive": adaptive, "steps_since_ascent": 0})

    @classmethod
    def from_optimizer(
        cls, optimizer: torch.optim.Optimizer, *, rho: float = 0.05, adaptive: bool = False, **options: Any
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
            group.update(rho=rho, adaptive=adaptive, steps_since_ascent=0)
        return cls(optimizer.param_groups, lambda params: optimizer, rho=rho, adaptive=adaptive, **options)

    def _check_group(self, index: int) -> None:
        check_group(self.base_optimizer, self.param_groups, index)
        if self.direction == "momentum" and self.param_groups[index]["rho"] > 0:
            check_momentum(self.base_optimizer, self.param_groups[index], index)
        warn_of_wrong_steps(self.base_optimizer, self.param_groups[index], self._warned)

    @property
    def ascends(self) -> bool:
        """Whether the next step perturbs the weights, and so may cost a second evaluation."""
        groups = self.base_optimizer.param_groups
        return not groups[0].get("steps_since_ascent", 0) and any(group.get("rho", 0) > 0 for group in groups)

    @property
    def _needs_gradient(self) -> bool:
        return getattr(self._upwards, "needs_gradient", True)

    @property
    def _upwards(self) -> Direction:
        return DIRECTIONS[self.direction] if isinstance(self.direction, str) else self.direction

    # -- whole steps ---------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None, ascent_closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable, optional
            Zeroes the gradients, computes the loss, calls ``backward``, returns the loss; called twice, or once where
            the step does not ascend or ``direction`` needs no gradient. Without it, after :meth:`first_step`, this is
            :meth:`second_step`; where the next step does not ascend, the base optimizer's step.
        ascent_closure : callable, optional
            The same with the loss on a part of the batch, for the first of two evaluations (K-SAM, Ni et al. 2022).
            Needs a larger ``rho``, as the part points only partly along the gradient of the whole. Not called where the
            step takes one pass.

        Returns
        -------
        Tensor or None
            The loss at the weights before the step; that at the perturbed weights where only this is of the whole
            batch, with an ``ascent_closure`` or with ``direction="momentum"``, and None if that was not evaluated.

        Raises
        ------
        RuntimeError
            Without a closure; for a sparse gradient.
        NotFinite
            For a gradient that is not finite, naming the first such parameter; a RuntimeError.
            The weights are as they were before the step, as after any exception in here.
        """
        ascends = self.ascends
        if closure is None:
            if not self._perturbed and ascends:
                raise RuntimeError(
                    "RSAM.step needs a closure that zeroes gradients, computes the loss, calls backward and returns "
                    "the loss; or call first_step() and second_step() yourself"
                )
            if not self._perturbed:
                self.first_step()
            self.second_step()
            return None
        if self._perturbed:
            raise RuntimeError("step(closure) after first_step(); call second_step() or restore() first")
        partial = ascends and ascent_closure not in (None, closure) and self._needs_gradient
        loss = None
        if self._needs_gradient or not ascends:
            loss = self._evaluate(ascent_closure if partial else closure, kept=not partial)  # type: ignore[arg-type]
        self._first_half(hooked=False)
        perturbed = loss
        if ascends and not self._skip:
            perturbed = self._evaluate(closure, kept=partial or not self._needs_gradient)
        self.second_step()
        if not self._skip and self._needs_gradient and not partial:
            self._losses = (_number(loss), _number(perturbed))
        if partial or not self._needs_gradient:
            return None if self._skip else perturbed
        return loss

    def _evaluate(self, closure: Callable[[], Any], kept: bool) -> Any:
        """Call a closure as a pass of a step; after an exception everything is as before the step."""
        try:
            for hook in self._hooks:
                hook.before_pass(kept)
            with torch.enable_grad():
                return closure()
        except BaseException:
            self._abandon()
            raise

    # -- halves of a step ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Ascend to the perturbed weights, from gradients of the loss at the weights.

        Where the step does not ascend (:attr:`ascends`), the weights stay, and so may the gradients. With
        ``direction="momentum"`` it comes before the only ``backward`` and needs no gradients.

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
        self._first_half(hooked=self.ascends)
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def _first_half(self, hooked: bool) -> None:
        if self._perturbed:
            raise RuntimeError("first_step() twice; call second_step() or restore() in between")
        try:
            self._check_and_save()
            if self.ascends:
                self._ascend()
            for hook in self._hooks if hooked else ():
                hook.before_pass(not self._needs_gradient)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Leave everything as it was before the step."""
        if not self._perturbed:
            self._end_passes()
        self.restore()

    def _check_and_save(self) -> None:
        self._losses = self._grad_norm = None
        self._skip = False
        groups = self.base_optimizer.param_groups
        if any("rho" not in group for group in groups):  # that came by way of the base
            self._fill_options()
        for g, group in enumerate(groups):
            if not group["rho"] >= 0 or group["adaptive"]:  # may have been set since the group was checked
                check_group(self.base_optimizer, groups, g)
            if self.direction == "momentum" and group["rho"] > 0:
                check_momentum(self.base_optimizer, group, g)
        self._refuse_sparse()
        # subclasses of tensors, such as geoopt's, would ask Python for every attribute
        with torch._C.DisableTorchFunctionSubclass():
            self._space = space_of(groups, self._space, live=True)
            try:
                self._perturbation.save(self._space)
            except StalePlan:
                self._space.update()
                self._perturbation.save(self._space)

    def _ascend(self) -> None:
        groups = self.base_optimizer.param_groups
        with torch._C.DisableTorchFunctionSubclass():
            state = self.base_optimizer.state
            weights = self._perturbation.weights(groups, state, self._needs_gradient, self.radius)
        if not weights.blocks:
            return
        length = self._perturbation.ascend(weights, self._upwards, self.ascent == "exponential")
        if self._needs_gradient:
            self._grad_norm = length
        elif not math.isfinite(length):
            raise NotFinite("the direction of ascent is not finite; look at the momentum of the base optimizer")
        self._skip = not math.isfinite(length) and self._skips(length)

    def _skips(self, length: float = math.inf) -> bool:
        """Answer a gradient that is not finite by the policy: skip the step, or raise."""
        if self.nonfinite == "raise":
            raise NotFinite(nonfinite_message(self.param_groups, length))
        return True

    def _refuse_sparse(self) -> None:
        for group in self.base_optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.grad.is_sparse:
                    refuse_sparse(self.base_optimizer.param_groups, p)

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
        if not self._perturbed:
            raise RuntimeError("second_step() without first_step()")
        try:
            self._refuse_sparse()
            with torch._C.DisableTorchFunctionSubclass():
                found = self._perturbation.bring_back(self.transport, self.ascent == "exponential")
        finally:
            self.restore()
        if not self._skip and (all_finite(found) or not self._skips()):
            try:
                self.base_optimizer.step()
                self._opt_called = True  # what torch's schedulers look for, in loops that never call step
            except BaseException:
                self._perturbation.put_back()
                raise
            for group in self.base_optimizer.param_groups:
                group["steps_since_ascent"] = (group["steps_since_ascent"] + 1) % self.every
        self._perturbation.forget()
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights back where they were before :meth:`first_step` (by copy); nothing to do otherwise."""
        if self._perturbed:
            self._perturbation.restore()
            self._end_passes()

    @property
    def _perturbed(self) -> bool:
        """Whether a step is between its two halves."""
        return self._perturbation.pending

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if not self._perturbed:  # copies of the last step are of no use to a copy
            state |= {"_perturbation": Perturbation(), "_space": None}
        return state

    def _end_passes(self) -> None:
        for hook in self._hooks:
            hook.after_passes()

    @property
    def sharpness(self) -> float | None:
        """Perturbed loss minus loss of the last ``step(closure)``.

        0 where the step did not ascend; None before one, if the closure returned none, and where the two losses are not
        of the same data or only one is known (with an ``ascent_closure``, with ``direction="momentum"``).
        """
        if self._losses is None or any(loss is None for loss in self._losses):
            return None
        return float(self._losses[1]) - float(self._losses[0])

    @property
    def grad_norm(self) -> float | None:
        """Riemannian norm of what the last step ascended along, the gradient or what ``direction`` made of it.

        Of the parameters in groups with a radius; None where the step did not ascend along a gradient.
        """
        return self._grad_norm

    def register_pass_hook(self, hook: PassHook) -> None:
        """Have a hook called before each pass of a step, and after the last."""
        self._hooks.append(hook)


def _number(loss: Any) -> Any:
    """A loss to keep, without asking the device for it; None for what is no number."""
    if isinstance(loss, Tensor):
        return loss.detach().clone() if loss.numel() == 1 else None
    return loss if isinstance(loss, float | int) else None
