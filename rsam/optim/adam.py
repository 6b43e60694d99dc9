"""Step by Riemannian Adam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from rsam import geometry
from rsam.geometry.blocks import Block
from rsam.optim.groups import parameter_names
from rsam.optim.riemannian import RiemannianOptimizer, State

__all__ = ["RiemannianAdam"]

#: How steps are counted, whatever torch's defaults are: bfloat16 cannot count further than 256.
_COUNTER: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


class RiemannianAdam(RiemannianOptimizer):
    r"""Riemannian Adam with the arguments of :class:`geoopt.optim.RiemannianAdam` (Becigneul and Ganea 2019, Fig. 1a).

    The second moment is that of the metric norm of each smallest component: each number of a plain parameter, each
    point of a manifold, each factor of a product. The first moment is carried along the step. On plain parameters this
    is :class:`torch.optim.Adam`, or :class:`torch.optim.AdamW` with ``decoupled_weight_decay``.

    Unlike geoopt 0.5.1, ``p.grad`` is left alone, ``maximize`` is honoured, decoupled weight decay is honoured on
    plain parameters and refused on manifolds, and a resumed run continues bitwise.

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
        Project points and buffers back after every ``stabilize`` steps.
    maximize : bool
        Maximise the objective instead.
    decoupled_weight_decay : bool
        Shrink plain parameters by ``1 - lr weight_decay`` as AdamW does.
    foreach, fused : bool, optional
        As for :class:`torch.optim.Adam`, whose function steps plain parameters.
    isometric : bool
        Carry the first moment by an isometric transport, instead of the cheapest valid one (see the table of
        manifolds).

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

    _entries = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _tangents = ("exp_avg",)

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
        foreach: bool | None = None,
        fused: bool | None = None,
        isometric: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
            "foreach": foreach,
            "fused": fused,
            "isometric": isometric,
        }
        super().__init__(params, defaults, stabilize)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        for i, beta in enumerate(group["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(f"betas[{i}] must be in [0, 1), got {beta}")
        if not group["eps"] >= 0:
            raise ValueError(f"eps must not be negative, got {group['eps']}")
        if group["decoupled_weight_decay"] and group["weight_decay"]:
            for p, name in zip(group["params"], parameter_names([group]), strict=True):
                if not geometry.is_plain(p):
                    raise ValueError(
                        f"decoupled_weight_decay would shrink {name}, shape {tuple(p.shape)}, off its "
                        f"{geometry.manifold_of(p).name} manifold; put it in a group with weight_decay=0"
                    )

    def _template(self, name: str, block: Block, x: Tensor) -> Tensor:
        if name == "step":
            return torch.zeros((), **_COUNTER)
        if name == "exp_avg":
            x = block.leave(x).to(block.dtype)
        else:
            x = block.apply("component_inner", x, torch.zeros_like(x)).to(block.dtype.to_real())
        return x[0] if block.stacked else x

    def _advance(
        self, group: dict[str, Any], manifold: Block, x: Tensor, g: Tensor, state: State
    ) -> tuple[Tensor, State]:
        beta1, beta2 = group["betas"]
        r = manifold.apply("raise_index", x, g)
        square = manifold.apply("component_inner", x, r)
        count = len(manifold.indices) if manifold.stacked else ()
        step = state["step"] + 1 if "step" in state else torch.ones(count, **_COUNTER)
        first = torch.lerp(state["exp_avg"], r, 1 - beta1) if "exp_avg" in state else (1 - beta1) * r
        second = state.get("exp_avg_sq")
        second = (1 - beta2) * square if second is None else torch.lerp(second, square, 1 - beta2)
        new: State = {"step": step, "exp_avg_sq": second}
        if group["amsgrad"]:
            second = torch.maximum(state["max_exp_avg_sq"], second) if "max_exp_avg_sq" in state else second
            new["max_exp_avg_sq"] = second
        correction1, correction2 = (_correction(beta, step, x) for beta in (beta1, beta2))
        denominator = (second / correction2).sqrt() + group["eps"]
        t = (-float(group["lr"]) / correction1) / denominator
        y, new["exp_avg"] = manifold.apply("retract_transport", x, first, first, t, isometric=group["isometric"])
        return y, new

    def _step_plain(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        entries = ["exp_avg", "exp_avg_sq"] + (["max_exp_avg_sq"] if group["amsgrad"] else [])
        states = [self.state[p] for p in params]
        for p, state in zip(params, states, strict=True):
            if not isinstance(state.get("step"), Tensor):  # none yet, or the int that geoopt counts in
                step = torch.tensor(float(state.get("step", 0)), **_COUNTER)
                state["step"] = step.to(p.device) if group["fused"] else step
            for name in entries:
                if name not in state:
                    state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
                elif state[name].dtype != p.dtype:  # converted since; torch would fail after blocks were written
                    state[name] = state[name].to(p.dtype)
        columns = {name: [state[name] for state in states] for name in ("step", *entries)}
        beta1, beta2 = group["betas"]
        (adamw if group["decoupled_weight_decay"] else adam)(
            params,
            gradients,
            columns["exp_avg"],
            columns["exp_avg_sq"],
            columns.get("max_exp_avg_sq", []),
            columns["step"],
            has_complex=any(map(torch.is_complex, params)),
            beta1=beta1,
            beta2=beta2,
            **{name: group[name] for name in ("foreach", "fused", "amsgrad", "lr", "weight_decay", "eps", "maximize")},
        )


def _correction(beta: float, step: Tensor, x: Tensor) -> float | Tensor:
    """Return ``1 - beta ** step`` to divide by: a number if all points took equally many steps, else one per point."""
    steps = step.tolist()  # on the CPU, so that nothing waits
    if not isinstance(steps, list) or len(set(steps)) == 1:
        correction: float = 1 - beta ** (steps[0] if isinstance(steps, list) else steps)
        return correction
    each = torch.tensor([1 - beta**s for s in steps], dtype=x.dtype.to_real())
    return each.to(x.device, non_blocking=True).reshape(-1, *[1] * (x.dim() - 1))
