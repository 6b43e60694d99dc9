"""SGD and SAM on plain weights."""

from __future__ import annotations

import torch
from torch import nn

import rsam
from benchmarks.methods.method import Method
from benchmarks.runs.configuration import Run


def _sgd(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay)


def _sam(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    optimizer = rsam.RSAM(
        model.parameters(),
        torch.optim.SGD,
        rho=run.rho,
        lr=run.lr,
        momentum=run.momentum,
        weight_decay=run.weight_decay,
    )
    rsam.nn.first_pass_only(optimizer, model)
    return optimizer


SGD = Method("sgd", "SGD", _sgd)
SAM = Method("sam", "SAM", _sam, has_rho=True)
