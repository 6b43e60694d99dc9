"""Descend by the Riemannian stochastic gradient with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from rsam.geometry.blocks import Block
from rsam.optim.riemannian import RiemannianOptimizer, State

__all__ = ["RiemannianSGD"]


class RiemannianSGD(RiemannianOptimizer):
    r"""Riemannian SGD with the arguments of :class:`geoopt.optim.RiemannianSGD`.

    The algorithm is that of Bonnabel 2013 (equation 2), with a retraction::

        r = raise(x, g + weight_decay x)          Riemannian gradient
        b = momentum b + (1 - dampening) r        b = r at first
        d = r + momentum b  if nesterov else b
        x, b = R_x(-lr d), transport of b along it

    On plain parameters this is :class:`torch.optim.SGD`. Unlike geoopt 0.5.1, momentum starts from the Riemannian
    gradient, ``p.grad`` is left alone, ``maximize`` exists, and the closure runs with gradients enabled. geoopt's
    momentum starts from the raw Euclidean gradient, which is not tangent: on the sphere it can throw a point to its
    antipode.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them; each lives on its ``manifold`` attribute, or is plain.
    lr : float
        Learning rate, not negative.
    momentum : float
        Momentum factor, not negative.
    dampening : float
        Dampening for momentum.
    weight_decay : float
        L2 penalty, in the coordinates of the ambient space.
    nesterov : bool
        Nesterov momentum; needs ``momentum > 0`` and no dampening.
    stabilize : int, optional
        Project points and buffers back after every ``stabilize`` steps.
    maximize : bool
        Maximise the objective instead.
    foreach, fused : bool, optional
        As for :class:`torch.optim.SGD`, whose function steps plain parameters.
    isometric : bool
        Carry momentum by an isometric transport, instead of the cheapest valid one (see the table of manifolds).

    Raises
    ------
    ValueError
        For arguments out of range.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    >>> opt = rsam.optim.RiemannianSGD([x], lr=0.1, momentum=0.9)
    >>> for _ in range(100):
    ...     opt.zero_grad()
    ...     (-x[0]).backward()
    ...     _ = opt.step()
    >>> bool(x[0] > 0.999)
    True
    """

    _entries = _tangents = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        stabilize: int | None = None,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        isometric: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "isometric": isometric,
        }
        super().__init__(params, defaults, stabilize)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if not group["momentum"] >= 0:
            raise ValueError(f"momentum must not be negative, got {group['momentum']}")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov needs momentum > 0 and dampening = 0")

    def _template(self, name: str, block: Block, x: Tensor) -> Tensor:
        x = block.leave(x).to(block.dtype)
        return x[0] if block.stacked else x

    def _advance(
        self, group: dict[str, Any], manifold: Block, x: Tensor, g: Tensor, state: State
    ) -> tuple[Tensor, State]:
        lr, momentum = float(group["lr"]), group["momentum"]
        r = manifold.apply("raise_index", x, g)
        b = state.get("momentum_buffer")
        if not momentum and b is None:
            return manifold.apply("retract", x, -lr * r), {}
        if not momentum:  # switched off: torch keeps the buffer for later, when it must still be tangent
            y, b = manifold.apply("retract_transport", x, r, b, -lr, isometric=group["isometric"])
            return y, {"momentum_buffer": b}
        b = r if b is None else torch.add((1 - group["dampening"]) * r if group["dampening"] else r, b, alpha=momentum)
        d = torch.add(r, b, alpha=momentum) if group["nesterov"] else b
        y, b = manifold.apply("retract_transport", x, d, b, -lr, isometric=group["isometric"])
        return y, {"momentum_buffer": b}

    def _step_plain(self, group: dict[str, Any], params: list[Tensor], gradients: list[Tensor]) -> None:
        names = ("foreach", "fused", "weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")
        states = [self.state[p] for p in params] if group["momentum"] else [{} for _ in params]
        buffers = [state.get("momentum_buffer") for state in states]
        by_lists = group["foreach"] or (group["foreach"] is None and not gradients[0].is_cpu)
        if group["nesterov"] and by_lists and not group["fused"]:
            gradients = [g.clone() for g in gradients]  # to which torch's multi-tensor form adds the momentum
        sgd(params, gradients, buffers, **{name: group[name] for name in names})
        for state, buffer in zip(states, buffers, strict=True):
            state["momentum_buffer"] = buffer
