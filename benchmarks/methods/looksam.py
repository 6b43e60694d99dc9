"""Train plain weights by LookSAM of ``pytorch_optimizer``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.methods.method import Method
from benchmarks.run import Run

__all__ = ["EVERY", "PEER_LOOKSAM"]

#: Steps from one ascent to the next, the library's default: 1.1 gradient evaluations per step.
EVERY = 10


class _PeerLookSAM(torch.optim.Optimizer):
    """``pytorch_optimizer.LookSAM`` with torch's interface: ``step`` takes a closure, and calls it as often as needed.

    LookSAM (Liu et al. 2022) ascends in every k-th step, keeps what the gradient there has beside the gradient at the
    weights, and adds that to the gradients of the steps between. Its own ``step`` would evaluate the closure twice in
    those, too, at the same weights; halves of it do not. Unlike the paper, it takes norms and projections of each
    tensor by itself and not of all together.
    """

    def __init__(self, model: nn.Module, run: Run) -> None:
        from pytorch_optimizer import LookSAM
        from pytorch_optimizer.optimizer.utils import disable_running_stats, enable_running_stats

        self._kept_pass = partial(enable_running_stats, model)
        self._other_pass = partial(disable_running_stats, model)
        settings = {"lr": run.lr, "momentum": run.momentum, "weight_decay": run.weight_decay}
        self._sam: Any = LookSAM(model.parameters(), torch.optim.SGD, run.rho, k=EVERY, **settings)  # type: ignore[arg-type]
        super().__init__(self._sam.param_groups, settings)
        self.param_groups = self._sam.param_groups  # shared, so that a schedule reaches them

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        assert closure is not None
        with torch.enable_grad():
            loss: Tensor = closure()
        if self._sam.get_step() % EVERY == 0:
            self._other_pass()
            self._sam.first_step()
            with torch.enable_grad():
                closure()
            self._kept_pass()
        self._sam.second_step()
        return loss


PEER_LOOKSAM = Method("peer_looksam", "LookSAM of pytorch_optimizer", _PeerLookSAM, gradients=1 + 1 / EVERY)
