"""Methods with the kernels of all convolutions on unit spheres or Stiefel manifolds; other weights are plain."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import geoopt
import torch
from torch import nn

import rsam
from benchmarks.methods.ambient import AmbientSAM
from benchmarks.methods.method import Method
from benchmarks.runs.configuration import Run

Place = Literal["spheres", "stiefel"]
Transport = Literal["vector", "pullback", "project"]

_MANIFOLDS: dict[Place, geoopt.Manifold] = {
    "spheres": rsam.geometry.KernelSphere(),
    "stiefel": rsam.geometry.KernelStiefel(),
}
_LABELS: dict[Place, str] = {"spheres": "spheres", "stiefel": "Stiefel"}


def _groups(model: nn.Module, run: Run, place: Place) -> list[dict[str, Any]]:
    """Put the kernels where they belong; return parameter groups that decay the plain parameters only."""
    rsam.nn.constrain(model, _MANIFOLDS[place], (nn.Conv1d, nn.Conv2d))
    kernels = [p for p in model.parameters() if hasattr(p, "manifold")]
    plain = [p for p in model.parameters() if not hasattr(p, "manifold")]
    return [{"params": kernels}, {"params": plain, "weight_decay": run.weight_decay}]


def _sgd(model: nn.Module, run: Run, place: Place) -> torch.optim.Optimizer:
    return rsam.optim.RiemannianSGD(_groups(model, run, place), lr=run.lr, momentum=run.momentum)


def _adam(model: nn.Module, run: Run, place: Place) -> torch.optim.Optimizer:
    return rsam.optim.RiemannianAdam(_groups(model, run, place), lr=run.lr, decoupled_weight_decay=True)


def _rsam(model: nn.Module, run: Run, place: Place, transport: Transport) -> torch.optim.Optimizer:
    groups = _groups(model, run, place)
    optimizer = rsam.RSAM(
        groups, rsam.optim.RiemannianSGD, rho=run.rho, transport=transport, lr=run.lr, momentum=run.momentum
    )
    rsam.nn.update_statistics_once(optimizer, model)
    return optimizer


def _ambient(model: nn.Module, run: Run, place: Place) -> torch.optim.Optimizer:
    return AmbientSAM(_groups(model, run, place), model, run.rho, lr=run.lr, momentum=run.momentum)


def _methods(place: Place, suffix: str) -> tuple[Method, ...]:
    label = _LABELS[place]

    def sharp(name: str, text: str, build: Any) -> Method:
        return Method(f"{name}{suffix}", f"{text}, {label}", build, "rho", gradients=2, manifold=place)

    return (
        Method(f"riemannian_sgd{suffix}", f"RiemannianSGD, {label}", partial(_sgd, place=place), manifold=place),
        Method(f"riemannian_adam{suffix}", f"RiemannianAdam, {label}", partial(_adam, place=place), manifold=place),
        sharp("rsam", "RSAM", partial(_rsam, place=place, transport="vector")),
        sharp("rsam_pullback", "RSAM (pullback)", partial(_rsam, place=place, transport="pullback")),
        sharp("rsam_project", "RSAM (project)", partial(_rsam, place=place, transport="project")),
        sharp("ambient_sam", "ambient SAM", partial(_ambient, place=place)),
    )


SPHERES = _methods("spheres", "")
STIEFEL = _methods("stiefel", "_stiefel")
