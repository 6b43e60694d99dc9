"""Train plain weights by SGD, AdamW, SAM and its variants, and another library's SAM to check ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import rsam
from benchmarks.methods.directions import along_noise
from benchmarks.methods.method import Method
from benchmarks.run import Run


def _sgd(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay)


def _adamw(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=run.lr, weight_decay=run.weight_decay)


def _sam(model: nn.Module, run: Run, adaptive: bool = False, direction: Any = "gradient") -> torch.optim.Optimizer:
    optimizer = rsam.RSAM(
        model.parameters(),
        torch.optim.SGD,
        rho=run.rho,
        adaptive=adaptive,
        direction=direction,
        every=run.every,
        lr=run.lr,
        momentum=run.momentum,
        weight_decay=run.weight_decay,
    )
    rsam.nn.update_statistics_once(optimizer, model)
    return optimizer


class _PeerSAM(torch.optim.Optimizer):
    """``pytorch_optimizer.SAM`` with torch's interface: ``step`` takes a closure, which makes the first pass too.

    The second pass does not update running averages of batch norm: their momentum is 0, as in its own recipe.
    """

    def __init__(self, model: nn.Module, run: Run) -> None:
        from pytorch_optimizer import SAM
        from pytorch_optimizer.optimizer.utils import disable_running_stats, enable_running_stats

        self._first_pass = partial(enable_running_stats, model)
        self._second_pass = partial(disable_running_stats, model)
        settings = {"lr": run.lr, "momentum": run.momentum, "weight_decay": run.weight_decay}
        self._sam: Any = SAM(model.parameters(), torch.optim.SGD, run.rho, **settings)  # type: ignore[arg-type]
        super().__init__(self._sam.param_groups, settings)
        self.param_groups = self._sam.param_groups  # shared, so that a schedule reaches them

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        assert closure is not None
        self._first_pass()
        with torch.enable_grad():
            loss: Tensor = closure()
        self._second_pass()
        self._sam.step(closure)
        self._first_pass()
        return loss


SGD = Method("sgd", "SGD", _sgd)
ADAMW = Method("adamw", "AdamW", _adamw)
SAM = Method("sam", "SAM", _sam, gradients=2)
MOMENTUM_SAM = Method("sam_momentum", "Momentum-SAM", partial(_sam, direction="momentum"))
FRIENDLY_SAM = Method("sam_friendly", "Friendly SAM", partial(_sam, direction=along_noise), gradients=2)
ASAM = Method("asam", "ASAM", partial(_sam, adaptive=True), gradients=2)
PEER_SAM = Method("peer_sam", "SAM of pytorch_optimizer", _PeerSAM, gradients=2)
