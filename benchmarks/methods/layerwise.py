"""Perturb each layer in proportion to its own size, as layer-wise SAM does."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import rsam
from benchmarks.methods.method import Method
from benchmarks.run import Run

__all__ = ["LAYERWISE", "LayerwiseSAM"]


class LayerwiseSAM(rsam.RSAM):
    r"""SAM in which each parameter moves by a part of its norm (Liu et al. 2022, *LookSAM*, eq. 6).

    Parameter k moves along its gradient by :math:`\rho |w_k|`: an angle, on weights that batch norm makes free to
    scale. It is RSAM with ``radius="parameter"`` and one group per parameter, whose ``rho`` follows the norm.

    Parameters
    ----------
    params : iterable of Parameter
        Plain parameters.
    relative : float
        The part.
    **options
        Of :class:`rsam.RSAM`, and of the base optimizer.
    """

    def __init__(self, params: Any, relative: float, **options: Any) -> None:
        groups = [{"params": [p]} for p in params]
        super().__init__(groups, torch.optim.SGD, rho=relative, radius="parameter", **options)
        self.relative = relative

    def step(self, closure: Any = None, ascent_closure: Any = None) -> Any:
        """Take a step, with radii in proportion to the present norms."""
        norms = torch._foreach_norm([group["params"][0].detach() for group in self.param_groups])
        for group, norm in zip(self.param_groups, norms, strict=True):
            group["rho"] = self.relative * float(norm)  # of a bias that is zero still: 0, it stays where it is
        return super().step(closure, ascent_closure)


def _layerwise(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    settings = {"lr": run.lr, "momentum": run.momentum, "weight_decay": run.weight_decay}
    optimizer = LayerwiseSAM(model.parameters(), run.rho, **settings)
    rsam.nn.update_statistics_once(optimizer, model)
    return optimizer


LAYERWISE = Method("layerwise_sam", "layerwise SAM", _layerwise, gradients=2)
