"""Riemannian SGD and RSAM with each filter of each convolution on a unit sphere."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import rsam
from benchmarks.methods.method import Method
from benchmarks.runs.configuration import Run


def _constrained_groups(model: nn.Module, run: Run) -> list[dict[str, Any]]:
    """Put the kernels on spheres; return parameter groups that decay the plain parameters only."""
    rsam.nn.constrain(model, rsam.geometry.KernelSphere(), nn.Conv2d)
    kernels = [p for p in model.parameters() if hasattr(p, "manifold")]
    plain = [p for p in model.parameters() if not hasattr(p, "manifold")]
    return [{"params": kernels}, {"params": plain, "weight_decay": run.weight_decay}]


def _riemannian_sgd(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    return rsam.optim.RiemannianSGD(_constrained_groups(model, run), lr=run.lr, momentum=run.momentum)


def _rsam(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    groups = _constrained_groups(model, run)
    optimizer = rsam.RSAM(groups, rsam.optim.RiemannianSGD, rho=run.rho, lr=run.lr, momentum=run.momentum)
    rsam.nn.first_pass_only(optimizer, model)
    return optimizer


RIEMANNIAN_SGD = Method("riemannian_sgd", "RiemannianSGD, spheres", _riemannian_sgd)
RSAM = Method("rsam", "RSAM, spheres", _rsam, has_rho=True)
