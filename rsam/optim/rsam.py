r"""Minimise sharpness-aware on Riemannian manifolds.

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
from typing import Any, Literal, TypeVar, overload

import torch

from rsam.optim.ascent import Direction, Transport
from rsam.optim.backward import refuse_without_closure
from rsam.optim.callers import refuse_part_of_a_model, refuse_skipped_closures
from rsam.optim.checks import check_base, check_class, check_group, check_momentum, check_options, warn_of_wrong_steps
from rsam.optim.closures import are_one, computing_anew, number
from rsam.optim.distributed import Replicas, refuse_sharded
from rsam.optim.groups import check_parameters
from rsam.optim.hooks import PassHook, check_hook
from rsam.optim.passes import Passes
from rsam.optim.riemannian import RiemannianOptimizer
from rsam.optim.sgd import RiemannianSGD
from rsam.optim.weights import Radius, has_radius
from rsam.optim.wrapper import WrappingOptimizer

__all__ = ["RSAM"]

Loss = TypeVar("Loss")


class RSAM(WrappingOptimizer):
    r"""Sharpness-aware minimisation that follows the manifolds of the parameters.

    On plain parameters it is the SAM of Foret et al. 2021 (eq. 2), or with ``adaptive=True`` the ASAM of Kwon et al.
    2021 (Algorithm 1). On geoopt parameters both steps follow the manifold (Yun and Yang, NeurIPS 2023, Algorithm 1).
    ``rho=0`` is the base optimizer, bitwise, with one evaluation of the closure. With ``maximize=True`` of the base the
    perturbation is towards smaller values: the step is that of minimising the negative.

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
        How to bring the gradient back from the perturbed point: as a tangent vector that is carried along the ascent
        and lowered; as the exact gradient of the loss after the retraction, :math:`(D R_w(e))^\top \tilde g`; or
        unchanged, to be projected by the base optimizer (Truong et al. 2023). All three agree on plain parameters.
    ascent : {"retraction", "exponential"}
        The curve along which the weights are perturbed.
    direction : {"gradient", "momentum"} or callable
        Which way to ascend: along the gradient; along the base optimizer's momentum (Momentum-SAM, Becker et al.
        2024); or along the list of tangents that a function of :class:`rsam.optim.Weights` returns. The momentum needs
        no gradient, so that the closure runs only once, at the perturbed weights; likewise for a function whose
        attribute ``needs_gradient`` is false.
    radius : {"product", "parameter", "point"}
        Which ball the ascent fills: one over the product of all parameters, one for each parameter, or one for each
        point (a kernel, a row of a batch, a whole plain tensor). Each parameter or point then moves by ``rho`` in its
        own metric.
    every : int
        Number of steps of which only the first ascends (Liu et al. 2022, without reuse); the others are steps of the
        base optimizer, and cost one evaluation.
    nonfinite : {"raise", "skip"}
        What to do about a gradient that is not finite, in either pass: raise :exc:`rsam.NotFinite`, or skip the step.
        The weights stay as they were in both cases. A momentum that is not finite always raises.
    local_ascent : torch.nn.parallel.DistributedDataParallel, optional
        The wrapped model, if each process is to ascend along the gradient of its own part of the batch (m-sharpness,
        Foret et al. 2021). The model averages no gradients any more; the step averages those that were brought back.
    **base_kwargs
        Arguments of the base optimizer.

    Raises
    ------
    ValueError, TypeError
        For an option out of range, a base that is no class of optimizers, one that would step a parameter off its
        manifold, ``adaptive`` on one, or ``direction="momentum"`` over a base optimizer or group without momentum.
    UnsupportedOperation
        For a parameter on a manifold that :mod:`rsam.geometry` cannot treat; names both.

    See Also
    --------
    rsam.optim.rho_scheduler : Drive ``rho`` by any scheduler of torch.
    rsam.optim.partial_closures : Ascend along the gradient of a part of each batch.
    rsam.nn.update_statistics_once : Keep batch-norm statistics out of one of the two passes.

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
        ascent: Literal["retraction", "exponential"] = "retraction",
        direction: Literal["gradient", "momentum"] | Direction = "gradient",
        radius: Radius = "product",
        every: int = 1,
        nonfinite: Literal["raise", "skip"] = "raise",
        local_ascent: torch.nn.Module | None = None,
        **base_kwargs: Any,
    ) -> None:
        check_class(base_optimizer)
        check_options(transport, ascent, direction, radius, every, nonfinite)
        refuse_part_of_a_model()
        base = base_optimizer(params, **base_kwargs)
        check_base(base)
        self.transport, self.ascent, self.direction, self.radius = transport, ascent, direction, radius
        self.every, self.nonfinite = every, nonfinite
        self.local_ascent = None if local_ascent is None else Replicas(local_ascent)
        self._passes = Passes(self)
        self._warned: set[str] = set()
        super().__init__(base, {"rho": rho, "adaptive": adaptive, "steps_since_ascent": 0})
        if local_ascent is not None:
            Replicas.take_over(local_ascent)

    @classmethod
    def from_optimizer(
        cls, optimizer: torch.optim.Optimizer, *, rho: float = 0.05, adaptive: bool = False, **options: Any
    ) -> RSAM:
        """Wrap an optimizer that exists already, state and all, as ``base_optimizer``.

        Parameters
        ----------
        optimizer : torch.optim.Optimizer
            The optimizer that is to own the steps.
        rho, adaptive : as for the class
            Set in all of its groups.
        **options
            Other options of the class, such as ``transport``.

        Returns
        -------
        RSAM
            Wrapper with the optimizer's groups and state. If it raises, the groups are as they were.

        Raises
        ------
        ValueError, TypeError, UnsupportedOperation
            As the class does.

        Examples
        --------
        >>> import torch, rsam
        >>> sgd = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        >>> rsam.RSAM.from_optimizer(sgd, rho=0.1).param_groups is sgd.param_groups
        True
        """
        check_base(optimizer)
        before = [dict(group) for group in optimizer.param_groups]
        try:
            for group in optimizer.param_groups:
                group.update(rho=rho, adaptive=adaptive, steps_since_ascent=0)
            return cls(optimizer.param_groups, lambda params: optimizer, rho=rho, adaptive=adaptive, **options)
        except Exception:
            for group, options_before in zip(optimizer.param_groups, before, strict=True):
                group.clear()
                group.update(options_before)
            raise

    def _check_group(self, index: int, anew: bool = False) -> None:
        """Raise for a group that is not supported; ``anew`` in a step, without reading the parameters' values."""
        if not anew and not isinstance(self.base_optimizer, RiemannianOptimizer):  # which has checked them
            check_parameters(self.base_optimizer.param_groups, index)
        check_group(self.base_optimizer, self.param_groups, index)
        if self.direction == "momentum" and self.param_groups[index]["rho"] > 0:
            check_momentum(self.base_optimizer, self.param_groups[index], index)
        refuse_sharded(self, self.param_groups, index)
        warn_of_wrong_steps(self.base_optimizer, self.param_groups[index], self._warned)

    @property
    def ascends(self) -> bool:
        """Tell whether the next step perturbs the weights, and so may cost a second evaluation."""
        self._passes.check_options()
        groups = self.base_optimizer.param_groups
        # every may be another one than when the position was saved
        return groups[0].get("steps_since_ascent", 0) % self.every == 0 and any(map(has_radius, groups))

    # -- whole steps ---------------------------------------------------------------------------------------------

    @overload  # type: ignore[override]
    def step(self, closure: None = None, ascent_closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Loss], ascent_closure: Callable[[], Any] | None = None) -> Loss | None: ...

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
            The loss at the weights before the step. With an ``ascent_closure`` or with ``direction="momentum"`` only
            the loss at the perturbed weights is of the whole batch, and is returned, or None if it was not evaluated.

        Raises
        ------
        RuntimeError
            Without a closure, or after :meth:`first_step` without a second pass; for a closure that never calls
            ``backward``, leaves gradients from before, adds to them, or differentiates one graph in both passes; for a
            sparse gradient; from a wrapper of accelerate's that may accumulate.
        TypeError, ValueError
            For a closure that cannot be called; as the class does, for a parameter that was put on a manifold since.
        NotFinite
            For a gradient that is not finite; names the parameter. Weights stay as before, as after any exception.
        """
        if closure is not None and not callable(closure):
            unpack = "; unpack the pair: step(*closures)" if isinstance(closure, tuple) else ""
            raise TypeError(f"RSAM.step takes a closure that computes the loss, got {type(closure).__name__}{unpack}")
        passes = self._passes
        if closure is None:
            self._step_without_closure()
            return None
        if passes.pending:  # the wrapped step of Lightning, which brings a closure that does nothing
            loss = passes.finish(closure)
            passes.second_half(in_halves=True)
            return loss
        if not self.ascends:
            loss = passes.evaluate(closure, kept=True)
            passes.first_half(hooked=False)
            passes.second_half()
            value = number(loss)
            passes.note_losses(value, value)
            return loss
        refuse_skipped_closures()
        if not passes.needs_gradient:
            passes.first_half(hooked=False)
            loss = passes.evaluate(closure, kept=True, watched=True)
            passes.second_half()
            return None if passes.skip else loss
        partial = ascent_closure not in (None, closure)
        first = passes.evaluate(ascent_closure or closure, kept=not partial, watched=True)
        value = number(first)  # now, since the second pass may write to the same tensor
        passes.first_half(hooked=False, clear=True)
        second = None if passes.skip else passes.evaluate(computing_anew(closure, first), kept=partial)
        passes.second_half()
        if partial:
            return None if passes.skip else second
        passes.note_losses(value, number(second))
        return value if are_one(first, second) else first

    def _step_without_closure(self) -> None:
        passes = self._passes
        if not passes.pending:
            if self.ascends and not self._makes_state:
                refuse_without_closure(passes.needs_gradient)
            if self.ascends:
                return self.base_optimizer.step()
            passes.first_half(hooked=False)
        passes.second_half(in_halves=True)

    @property
    def _makes_state(self) -> bool:
        """Tell whether a step moves nothing and only makes the state, as in torch.distributed.checkpoint."""
        return not self.state and all(group.get("lr") == 0 for group in self.param_groups)

    # -- halves of a step ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Ascend to the perturbed weights, from gradients of the loss at the weights.

        Where the step does not ascend (:attr:`ascends`), the weights stay, and so may the gradients. With
        ``direction="momentum"`` it comes before the only ``backward`` and needs no gradients.

        Parameters
        ----------
        zero_grad : bool
            Clear the gradients afterwards, so that those of the second pass are not added to them.

        Raises
        ------
        RuntimeError
            If called twice, for gradients added to those of the step before, or for a sparse gradient.
        ValueError
            As the class does, for a parameter that was put on a manifold since.
        NotFinite
            For a gradient that is not finite; a RuntimeError.
        """
        self._passes.first_half(hooked=self.ascends)
        if zero_grad:
            self.zero_grad()

    @WrappingOptimizer.profile_hook_step
    @torch.no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        """Return to the weights and step from there, with gradients of the loss at the perturbed weights.

        Hooks of torch's optimizers run around this half; in whole steps, around :meth:`step`.

        Parameters
        ----------
        zero_grad : bool
            Clear the gradients afterwards.

        Raises
        ------
        RuntimeError
            Without a :meth:`first_step`, without a second pass, for gradients of both passes in one sum, or for a
            sparse gradient.
        NotFinite
            For a gradient that is not finite; a RuntimeError.
        """
        if not self._passes.pending:
            raise RuntimeError("second_step() without first_step()")
        self._passes.second_half(in_halves=True)
        self._opt_called = True  # torch's schedulers check this flag, also in loops that never call step
        if zero_grad:
            self.zero_grad()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients, as torch's optimizers do; a closure may add to what this has set to zero."""
        self._passes.unwatch()
        super().zero_grad(set_to_none)
        if not set_to_none:
            self._passes.note_zeros()

    def restore(self) -> None:
        """Restore the weights from before :meth:`first_step`, by copy; do nothing if there was none."""
        self._passes.restore()

    # -- results of the last step --------------------------------------------------------------------------------

    @property
    def sharpness(self) -> float | None:
        """Rise of the loss by the ascent of the last ``step(closure)``: perturbed loss minus loss at the weights.

        0 where the step did not ascend; None before one, after one that was skipped, if the closure returned none, and
        where the two losses are not of the same data or only one is known (with an ``ascent_closure``, with
        ``direction="momentum"``).
        """
        losses = self._passes.losses
        if losses is None or any(loss is None for loss in losses):
            return None
        return float(losses[1]) - float(losses[0])

    @property
    def grad_norm(self) -> float | None:
        """Riemannian norm of the tangent of the last ascent: the gradient, or the result of ``direction``.

        It covers the parameters in groups with a radius, and is None if the step did not ascend along a gradient.
        """
        return self._passes.grad_norm

    def register_pass_hook(self, hook: PassHook) -> None:
        """Register a hook that is called before each pass of a step, and after the last.

        Parameters
        ----------
        hook : PassHook
            Object with the two methods of :class:`rsam.optim.PassHook`; hooks run in the order of registration.

        Raises
        ------
        TypeError
            For an object without these methods.
        """
        check_hook(hook)
        self._passes.hooks.append(hook)
