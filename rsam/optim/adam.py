"""Riemannian Adam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from rsam import geometry
from rsam.optim.riemannian import RiemannianOptimizer, State

__all__ = ["RiemannianAdam"]


class RiemannianAdam(RiemannianOptimizer):
    r"""Riemannian Adam with the arguments of :class:`geoopt.optim.RiemannianAdam` (Becigneul and Ganea 2019, Fig. 1a).

    The second moment is that of the metric norm of each smallest component (each number of a plain parameter, each
    point of a manifold, each factor of a product); the first moment is carried along the step. On plain parameters
    this is :class:`torch.optim.Adam`, but that a complex number is one component, not two.

    Unlike geoopt 0.5.1, ``p.grad`` is left alone, ``maximize`` is honoured, decoupled weight decay is honoured on
    plain parameters and refused on manifolds, and a resumed run continues bitwise. The switches of torch's
    implementation that geoopt takes and ignores (``foreach``, ``fused``, ``capturable``, ``differentiable``) are no
    arguments.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them; each lives on its ``manifold`` attribute, or is plain.
    lr : float
        Learning rate, not negative.
    betas : tuple of float
        Decay rates of the two moments, in [0, 1).
    eps : float
        Added to the denominator, not negative.
    weight_decay : float
        L2 penalty in the coordinates of the ambient space, or decoupled decay.
    amsgrad : bool
        Use the running maximum of the second moment (Reddi et al. 2018).
    stabilize : int, optional
        Project points and buffers back every so many steps.
    maximize : bool
        Ascend instead.
    decoupled_weight_decay : bool
        Shrink plain parameters by ``1 - lr weight_decay`` as AdamW does.

    Raises
    ------
    ValueError
        For arguments out of range, or decoupled weight decay of a parameter on a manifold.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> x = geoopt.ManifoldParameter(torch.tensor([0.3, 0.4]), manifold=geoopt.PoincareBall())
    >>> opt = rsam.optim.RiemannianAdam([x], lr=0.05)
    >>> for _ in range(200):
    ...     opt.zero_grad()
    ...     x.square().sum().backward()
    ...     _ = opt.step()
    >>> bool(x.norm() < 1e-2)
    True
    """

    _tangent_buffers = ("exp_avg",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        stabilize: int | None = None,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, stabilize)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        for i, beta in enumerate(group["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(f"betas[{i}] must be in [0, 1), got {beta}")
        if group["eps"] < 0:
            raise ValueError(f"eps must not be negative, got {group['eps']}")
        if group["decoupled_weight_decay"] and group["weight_decay"]:
            for i, p in enumerate(group["params"]):
                if not geometry.is_plain(p):
                    raise ValueError(
                        f"decoupled_weight_decay would shrink parameter {i}, shape {tuple(p.shape)}, off its "
                        f"{geometry.manifold_of(p).name} manifold; put it in a group with weight_decay=0"
                    )

    def _update(
        self, group: dict[str, Any], params: list[Tensor], states: list[State]
    ) -> tuple[list[Tensor], list[State]]:
        lr, eps, decay = group["lr"], group["eps"], group["weight_decay"]
        beta1, beta2 = group["betas"]
        manifolds = [geometry.manifold_of(p) for p in params]
        points: list[Tensor] = [p.data for p in params]
        decoupled = group["decoupled_weight_decay"]
        gradients = self._gradients(group, params, 0.0 if decoupled else decay)
        if decoupled and decay:
            points = list(torch._foreach_mul(points, 1 - lr * decay))
        tangents = geometry.riemannian_gradient(points, gradients, manifolds=manifolds)
        squares = geometry.component_inner(points, tangents, manifolds=manifolds)
        new_states: list[State] = []
        steps: list[Tensor] = []
        for r, square, state in zip(tangents, squares, states, strict=True):
            step = int(state.get("step", 0)) + 1
            first = beta1 * state.get("exp_avg", torch.zeros_like(r)) + (1 - beta1) * r
            second = beta2 * state.get("exp_avg_sq", torch.zeros_like(square)) + (1 - beta2) * square
            new: State = {"step": step, "exp_avg": first, "exp_avg_sq": second}
            if group["amsgrad"]:
                second = torch.maximum(state.get("max_exp_avg_sq", torch.zeros_like(second)), second)
                new["max_exp_avg_sq"] = second
            denominator = (second / (1 - beta2**step)).sqrt() + eps
            steps.append(-lr * (first / (1 - beta1**step) / denominator))
            new_states.append(new)
        ends = geometry.retract(points, steps, manifolds=manifolds)
        moments = [new["exp_avg"] for new in new_states]
        for new, carried in zip(
            new_states, geometry.transport(points, steps, ends, moments, manifolds=manifolds), strict=True
        ):
            new["exp_avg"] = carried
        return ends, new_states
