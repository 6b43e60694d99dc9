"""Minimise sums of fourth powers, with SAM by hand to compare with."""

from __future__ import annotations

from typing import Any

import geoopt
import torch
from torch import Tensor

import rsam

RHO, LR = 0.3, 0.1
START = torch.tensor([1.0, -2.0], dtype=torch.float64)
CURVATURES = torch.tensor([[1.0, 3.0], [2.0, 0.5]], dtype=torch.float64)


def quartic_optimizer(**options: Any) -> tuple[torch.nn.Parameter, rsam.RSAM]:
    w = torch.nn.Parameter(START.clone())
    return w, rsam.RSAM([w], torch.optim.SGD, **{"lr": LR, "rho": RHO, **options})


def quartic_loss(w: Tensor, batch: int) -> Tensor:
    return (CURVATURES[batch] * w**4).sum()


def quartic_gradient(w: Tensor, *batches: int) -> Tensor:
    return sum((4 * CURVATURES[b] * w**3 for b in batches), torch.zeros_like(w))


def sam_step(w: Tensor, *batches: int) -> Tensor:
    g = quartic_gradient(w, *batches)
    return w - LR * quartic_gradient(w + RHO * g / g.norm(), *batches)


def points_on_sphere(*points: list[float]) -> list[geoopt.ManifoldParameter]:
    return [geoopt.ManifoldParameter(torch.tensor(p, dtype=torch.float64), manifold=geoopt.Sphere()) for p in points]
