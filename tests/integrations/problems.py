"""Define a problem for all frameworks, and the steps that a plain loop takes on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rsam

RHO, LR, MOMENTUM = 0.1, 0.1, 0.9


def model(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A small network with each row of its first weight on a sphere."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    return rsam.nn.constrain(network, rsam.geometry.KernelSphere(), "0.weight")


def optimizer(network: nn.Module, **options) -> rsam.RSAM:
    return rsam.RSAM(network.parameters(), **{"lr": LR, "momentum": MOMENTUM, "rho": RHO, **options})


def data(n: int = 12, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return the first n of twelve inputs with their labels."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(12, 5, generator=rng, dtype=torch.float64)[:n].to(dtype), torch.arange(n) % 3


def whole_steps(
    network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], clip: float | None = None, **options
) -> tuple[list[float], list[float]]:
    """Take one step(closure) for each batch; return the losses and the sharpness of the steps.

    With ``clip`` gradients are clipped to that norm, which in the first pass only changes ``grad_norm``.
    """
    opt, losses, sharpness = optimizer(network, **options), [], []
    for x, y in batches:

        def closure(x=x, y=y) -> Tensor:
            opt.zero_grad()
            loss = cross_entropy(network(x), y)
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), clip)
            return loss

        losses.append(opt.step(closure).item())
        sharpness.append(opt.sharpness)
    return losses, sharpness


def batches(n: int = 12, size: int = 4, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    return list(zip(*(t.split(size) for t in data(n, dtype=dtype)), strict=True))


def expected(network: nn.Module | None = None, **options) -> nn.Module:
    """Return the network after three steps of a plain loop, each on four examples."""
    network = network or model()
    whole_steps(network, batches(), **options)
    return network


def difference(network: nn.Module, other: nn.Module) -> float:
    """Return the largest difference of two networks' weights."""
    pairs = zip(network.parameters(), other.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)
