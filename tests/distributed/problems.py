"""Define models that one process or several train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import geoopt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rsam


class Network(nn.Module):
    """Network with hyperbolic rows, kernels and weights on spheres, plain weights and, if asked for, a Stiefel matrix.

    Sizes of five and three are not divisible by two; of two rows the third of three processes gets none.
    """

    def __init__(self, constrained: bool = True, stiefel: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rows = nn.Parameter(0.3 * torch.randn(5, 4))
        self.conv = nn.Conv1d(1, 6, 2)
        self.few = nn.Linear(4, 2, bias=False)
        self.last = nn.Linear(18 + 2, 3)
        self.rotation = nn.Parameter(torch.eye(4))
        self.double()
        if constrained:
            self.rows = geoopt.ManifoldParameter(self.rows.detach(), manifold=geoopt.PoincareBall())
            rsam.nn.constrain(self, rsam.geometry.KernelSphere(), "conv.weight")
            rsam.nn.constrain(self, geoopt.Sphere(), "few.weight")
        if stiefel:
            rsam.nn.constrain(self, geoopt.EuclideanStiefel(), "rotation")

    def forward(self, index: Tensor, inputs: Tensor) -> Tensor:
        x = (self.rows[index] + inputs) @ self.rotation
        filtered = self.conv(x.unsqueeze(1)).flatten(1)
        return self.last(torch.cat([filtered, self.few(x)], 1).tanh())


Batch = tuple[Tensor, Tensor, Tensor]


def batch(size: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return torch.arange(size) % 5, inputs, torch.arange(size) % 3


def part_of(rank: int, count: int) -> Batch:
    """Return the part of the batch for one of the processes."""
    return tuple(t.chunk(count)[rank] for t in batch())  # type: ignore[return-value]


def loss_of(model: nn.Module, data: Batch) -> Tensor:
    return cross_entropy(model(*data[:2]), data[2])


def closure_of(
    opt: torch.optim.Optimizer, model: nn.Module, data: Batch, set_to_none: bool = True
) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        opt.zero_grad(set_to_none)
        value = loss_of(model, data)
        value.backward()
        return value

    return closure


def take_steps(opt: Any, model: nn.Module, data: Batch, *, halves: bool = False, set_to_none: bool = True) -> None:
    """Take three steps, with a closure or in halves."""
    closure = closure_of(opt, model, data, set_to_none)
    for _ in range(3):
        if not halves:
            opt.step(closure)
            continue
        closure()
        opt.first_step()
        closure()
        opt.second_step()


def values(model: nn.Module) -> list[Tensor]:
    """Return the whole parameters as plain tensors."""
    return [
        p.full_tensor() if hasattr(p, "full_tensor") else p.detach().clone().as_subclass(Tensor)
        for p in (q.detach() for q in model.parameters())
    ]


def assert_all_close(actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 1e-10) -> None:
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)
