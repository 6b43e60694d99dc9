"""That the watch on gradients refuses sums of two passes, nothing else, and leaves nothing behind.

The reference is SAM by hand on plain parameters, ``w - lr g(w + rho g(w) / |g(w)|)``.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rsam

RHO, LR = 0.3, 0.1


def _params() -> list[nn.Parameter]:
    """A large backbone behind a small head."""
    return [nn.Parameter(torch.linspace(0.5, 1.0, n, dtype=torch.float64)) for n in (4, 3, 2)]


def _loss(params: list[nn.Parameter]) -> Tensor:
    return sum((p**4).sum() for p in params)


def _optimizer(params: list[nn.Parameter], **options: Any) -> rsam.RSAM:
    return rsam.RSAM(params, torch.optim.SGD, **{"lr": LR, "rho": RHO, **options})


def _halves(opt: rsam.RSAM, loss: Callable[[], Tensor], set_to_none: bool = True) -> None:
    for half in (opt.first_step, opt.second_step):
        opt.zero_grad(set_to_none)
        loss().backward()
        half()


# -- what is left behind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_that_a_model_trained_in_halves_is_freed(steps: int) -> None:
    """After one and two steps all gradients are watched, after three that of one parameter."""

    def trained() -> list[weakref.ref[Tensor | None]]:
        params = _params()
        opt = _optimizer(params)
        for _ in range(steps):
            _halves(opt, lambda: _loss(params))
        return [weakref.ref(t) for p in params for t in (p, p.grad)]

    alive = trained()
    gc.collect()
    assert [r() for r in alive] == [None] * 6


def test_that_optimizers_that_are_gone_leave_no_hooks() -> None:
    params = _params()
    for _ in range(3):
        _halves(_optimizer(params), lambda: _loss(params))
    gc.collect()
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in params)
