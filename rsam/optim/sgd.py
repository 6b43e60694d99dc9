"""Riemannian stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from rsam import geometry
from rsam.optim.riemannian import RiemannianOptimizer, State

__all__ = ["RiemannianSGD"]


class RiemannianSGD(RiemannianOptimizer):
    r"""Riemannian SGD with the arguments of :class:`geoopt.optim.RiemannianSGD` (Bonnabel 2013, eq. 2, retracting).

    ::

        r = raise(x, g + weight_decay x)          Riemannian gradient
        b = momentum b + (1 - dampening) r        b = r at first
        d = r + momentum b  if nesterov else b
        x, b = R_x(-lr d), transport of b along it

    On plain parameters this is :class:`torch.optim.SGD`. Unlike geoopt 0.5.1, momentum starts from the Riemannian
    gradient (geoopt's raw Euclidean one is not tangent: on the sphere it can throw a point to its antipode),
    ``p.grad`` is left alone, ``maximize`` exists, and the closure runs with gradients enabled.

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
        Project points and buffers back every so many steps.
    maximize : bool
        Ascend instead.

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

    _tangent_buffers = ("momentum_buffer",)

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
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults, stabilize)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if group["momentum"] < 0:
            raise ValueError(f"momentum must not be negative, got {group['momentum']}")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov needs momentum > 0 and dampening = 0")

    def _update(
        self, group: dict[str, Any], params: list[Tensor], states: list[State]
    ) -> tuple[list[Tensor], list[State]]:
        momentum = group["momentum"]
        gradients = self._gradients(group, params, group["weight_decay"])
        directions = geometry.riemannian_gradient(params, gradients)
        buffers: list[Tensor] = []
        if momentum:
            for r, state in zip(directions, states, strict=True):
                b = state.get("momentum_buffer")
                buffers.append(r.clone() if b is None else (momentum * b).add(r, alpha=1 - group["dampening"]))
            nesterov = torch._foreach_add(directions, buffers, alpha=momentum) if group["nesterov"] else None
            directions = buffers if nesterov is None else list(nesterov)
        steps = list(torch._foreach_mul(directions, -group["lr"]))
        points = geometry.retract(params, steps)
        if momentum:
            buffers = geometry.transport(params, steps, points, buffers)
        return points, [{"momentum_buffer": b} for b in buffers] or [{} for _ in params]
