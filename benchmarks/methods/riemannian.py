"""Train weights on the manifolds that the workload puts them on, and plain weights beside them."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import nn

import rsam
from benchmarks.methods.ambient import AmbientAscent
from benchmarks.methods.directions import along_noise
from benchmarks.methods.method import Method
from benchmarks.run import Run

__all__ = ["RIEMANNIAN"]

Transport = Literal["vector", "pullback", "project"]
Radius = Literal["product", "parameter", "point"]


def _groups(model: nn.Module, run: Run) -> list[dict[str, Any]]:
    """Make parameter groups that decay the plain parameters only, and step the others at a multiple of the rate."""
    placed = [p for p in model.parameters() if hasattr(p, "manifold")]
    plain = [p for p in model.parameters() if not hasattr(p, "manifold")]
    groups: list[dict[str, Any]] = [
        {"params": placed, "lr": run.lr * run.kernel_rate},
        {"params": plain, "weight_decay": run.weight_decay},
    ]
    return [group for group in groups if group["params"]]


def _sgd(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    return rsam.optim.RiemannianSGD(_groups(model, run), lr=run.lr, momentum=run.momentum)


def _adam(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    groups, betas = _groups(model, run), (run.beta, 0.999)
    return rsam.optim.RiemannianAdam(groups, lr=run.lr, betas=betas, decoupled_weight_decay=True)


def _rsam(
    model: nn.Module,
    run: Run,
    transport: Transport = "vector",
    radius: Radius = "product",
    direction: Any = "gradient",
    constrained_only: bool = False,
) -> torch.optim.Optimizer:
    groups = _groups(model, run)
    if constrained_only:
        for group in groups:
            group["rho"] = run.rho if hasattr(group["params"][0], "manifold") else 0.0
    options: dict[str, Any] = {"transport": transport, "radius": radius, "direction": direction, "every": run.every}
    options |= {"lr": run.lr, "momentum": run.momentum}
    optimizer = rsam.RSAM(groups, rsam.optim.RiemannianSGD, rho=run.rho, **options)
    rsam.nn.update_statistics_once(optimizer, model)
    return optimizer


def _rsam_adam(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": run.lr, "betas": (run.beta, 0.999), "decoupled_weight_decay": True}
    optimizer = rsam.RSAM(_groups(model, run), rsam.optim.RiemannianAdam, rho=run.rho, **options)
    rsam.nn.update_statistics_once(optimizer, model)
    return optimizer


def _ambient(model: nn.Module, run: Run) -> AmbientAscent:
    return AmbientAscent(_sgd(model, run), model, run.rho)


def _projected(model: nn.Module, run: Run) -> AmbientAscent:
    return AmbientAscent(_sgd(model, run), model, run.rho, project=True)


def _projected_adam(model: nn.Module, run: Run) -> AmbientAscent:
    return AmbientAscent(_adam(model, run), model, run.rho, project=True)


RIEMANNIAN = (
    Method("riemannian_sgd", "RiemannianSGD", _sgd),
    Method("riemannian_adam", "RiemannianAdam", _adam),
    Method("rsam", "RSAM", _rsam, 2),
    Method("rsam_momentum", "RSAM along the momentum", partial(_rsam, direction="momentum")),
    Method("rsam_friendly", "RSAM along Friendly SAM's direction", partial(_rsam, direction=along_noise), 2),
    Method("rsam_pullback", "RSAM (pullback)", partial(_rsam, transport="pullback"), 2),
    Method("rsam_project", "RSAM (project)", partial(_rsam, transport="project"), 2),
    Method("rsam_kernels", "RSAM, kernels", partial(_rsam, constrained_only=True), 2),
    Method(
        "rsam_parameter_kernels",
        "RSAM, one radius per layer's kernels",
        partial(_rsam, radius="parameter", constrained_only=True),
        2,
    ),
    Method("rsam_point", "RSAM, one radius per point", partial(_rsam, radius="point"), 2),
    Method("rsam_angle", "RSAM, one angle per kernel", partial(_rsam, radius="point", constrained_only=True), 2),
    Method("ambient_sam", "ambient SAM", _ambient, 2),
    Method("projected_sam", "projected SAM", _projected, 2),
    Method("rsam_adam", "RSAM, Adam", _rsam_adam, 2),
    Method("projected_sam_adam", "projected SAM, Adam", _projected_adam, 2),
)
