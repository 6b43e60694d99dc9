"""What differences of a loss stand on: evaluations elsewhere, step sizes, precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from rsam.derivatives import at_points, no_trace
from rsam.derivatives.no_trace import random_state, set_random_state

__all__ = ["Evaluations", "all_finite", "full_precision", "leaves", "step_length", "step_per_weight"]


class Evaluations:
    """Values and gradients at other points, all with the random numbers of the moment this was made.

    Parameters
    ----------
    evaluate : callable
        Returns a tensor with a graph.
    gradient : callable
        Gradient of such a tensor in the parameters, for a cotangent of the tensor (None for a scalar).
    params : list of Tensor
        The parameters that are moved.
    """

    def __init__(
        self,
        evaluate: Callable[[], Tensor],
        gradient: Callable[[Tensor, Tensor | None], list[Tensor]],
        params: list[Tensor],
    ) -> None:
        self._evaluate, self._gradient, self._params = evaluate, gradient, params
        self._state = random_state()

    def __call__(self, points: Sequence[Tensor], cotangent: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Value and gradient with the parameters at ``points``; no trace is left."""
        with no_trace(), at_points(self._params, points):
            set_random_state(self._state)
            outcome = self._evaluate()
            return outcome.detach(), self._gradient(outcome, cotangent)


def full_precision(params: Sequence[Tensor]) -> ExitStack:
    """Context without autocast, where it is on: geometry needs its digits, and so do second derivatives."""
    stack = ExitStack()
    for kind in {params[0].device.type, "cpu"}:
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


def step_per_weight(params: Sequence[Tensor]) -> float:
    r"""Return :math:`\varepsilon^{1/4}` times the root mean square of the parameters' entries, for second differences.

    The rounding error :math:`\varepsilon` is the coarsest in an evaluation of the parameters.
    """
    return _epsilon(params) ** 0.25 * _norm(params) / math.sqrt(sum(p.numel() for p in params))


def step_length(params: Sequence[Tensor]) -> float:
    r"""Return :math:`\varepsilon^{1/2}` times the norm of the parameters, for first differences."""
    return _epsilon(params) ** 0.5 * _norm(params)


def _epsilon(params: Sequence[Tensor]) -> float:
    dtypes = {p.dtype for p in params}
    kinds = {p.device.type for p in params}
    dtypes |= {torch.get_autocast_dtype(kind) for kind in kinds if torch.is_autocast_enabled(kind)}
    return max(torch.finfo(dtype).eps for dtype in dtypes)


def _norm(params: Sequence[Tensor]) -> float:
    norms = torch._foreach_norm([p.detach() for p in params])
    total = math.hypot(*torch.stack([n.to(norms[0].device, torch.float32) for n in norms]).tolist())
    return total or math.sqrt(sum(p.numel() for p in params))  # weights that are all zero have no scale: one each


def leaves(loss: Tensor) -> list[Tensor]:
    """Every tensor that ``loss.backward()`` would accumulate a gradient in."""
    found: list[Tensor] = []
    seen: set[Any] = set()
    stack: list[Any] = [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "AccumulateGrad":
            found.append(node.variable)
        stack += [upstream for upstream, _ in node.next_functions]
    return found


@torch.no_grad()
def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every number is finite, with one look at the device."""
    # the largest entries, which unlike sums do not overflow
    norms = torch._foreach_norm([t for t in tensors if t.numel()], math.inf)
    return bool(torch.stack([n.to(norms[0].device, torch.float32) for n in norms]).isfinite().all())
