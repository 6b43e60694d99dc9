"""Define small problems for the curvature tests, and dense references for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import geoopt
import torch
from torch import Tensor, nn

import rsam
from rsam import geometry
from rsam.curvature import RiemannianGaussNewton, RiemannianHessian
from rsam.testing import point_from_array
from rsam.testing.points import ambient_dtype

DOUBLE = torch.float64
Batch = tuple[Tensor, Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=generator(seed))


class Probed(nn.Module):
    """Smooth function of one point without symmetries: bounded functions of its pairings with fixed arrays."""

    def __init__(self, x: Tensor, manifold: geoopt.Manifold) -> None:
        super().__init__()
        self.point = geoopt.ManifoldParameter(x.contiguous(), manifold=manifold)

    def forward(self, arrays: Tensor) -> Tensor:
        x = torch.view_as_real(self.point) if self.point.is_complex() else self.point
        return torch.tanh(arrays @ x.flatten())


def probed(manifold: geoopt.Manifold, shape: tuple[int, ...]) -> tuple[Probed, Batch]:
    """Make a random point on a manifold, and data for a function of it."""
    manifold = manifold.double()
    dtype = ambient_dtype(manifold, DOUBLE)
    model = Probed(point_from_array(manifold, normal(*shape, seed=1, dtype=dtype) / 2), manifold)
    size = model.point.numel() * (2 if dtype.is_complex else 1)
    return model, (normal(6, 3, size, seed=2) / size**0.5, normal(6, 3, seed=3))


def risk_at(model: Probed, batch: Batch) -> Callable[[Tensor], Tensor]:
    """Compute the mean squared error as a function of the point, by torch alone."""

    def risk(x: Tensor) -> Tensor:
        outputs = torch.func.functional_call(model, {"point": x}, (batch[0],))
        return (outputs - batch[1]).square().mean()

    return risk


def network(seed: int = 0) -> nn.Module:
    """Make a network of two layers with plain parameters, in double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def mixed_network(seed: int = 0) -> nn.Module:
    """Make the same network with orthonormal columns in the first layer and unit rows in the last."""
    model = network(seed)
    rsam.nn.constrain(model, geoopt.EuclideanStiefel(), model[0].weight)
    return rsam.nn.constrain(model, geoopt.Sphere(), model[2].weight)


def examples(count: int = 12, seed: int = 5) -> Batch:
    """Draw inputs of size 4 and targets of size 3."""
    return normal(count, 4, seed=seed), normal(count, 3, seed=seed + 1)


def labelled(count: int = 12, seed: int = 5) -> Batch:
    """Draw inputs of size 4 and labels of three classes."""
    return normal(count, 4, seed=seed), torch.randint(3, (count,), generator=generator(seed + 1))


def batches(batch: Batch, *sizes: int) -> list[Batch]:
    return list(zip(*(part.split(sizes) for part in batch), strict=True))


def functional(
    model: nn.Module, loss_func: Callable[[Tensor, Tensor], Tensor], batch: Batch
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Return the loss as a function of all parameters of a model, and their values."""
    names = [name for name, _ in model.named_parameters()]

    def loss(*values: Tensor) -> Tensor:
        outputs = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (batch[0],))
        return loss_func(outputs, batch[1])

    return loss, tuple(p.detach().clone() for p in model.parameters())


def dense_hessian(
    model: nn.Module, loss_func: Callable[[Tensor, Tensor], Tensor], batch: Batch
) -> tuple[list[list[Tensor]], Tensor]:
    """Compute the blocks of the Euclidean Hessian as matrices, and the whole."""
    loss, values = functional(model, loss_func, batch)
    blocks = torch.autograd.functional.hessian(loss, values)
    flat = [
        [block.reshape(p.numel(), q.numel()) for q, block in zip(values, row, strict=True)]
        for p, row in zip(values, blocks, strict=True)
    ]
    return flat, torch.cat([torch.cat(row, 1) for row in flat])


def dense(operator: Any) -> Tensor:
    """Compute all columns of an operator."""
    return operator @ torch.eye(operator.shape[1], dtype=operator.dtype)


def snapshot(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def second_difference(f: Callable[[float], float], h: float = 2e-2) -> float:
    """Take a difference of fourth order, with error h^4 / 1440 (here 1e-10) and rounding 1e-16 / h^2 (1e-12)."""

    def central(h: float) -> float:
        return (f(h) - 2 * f(0.0) + f(-h)) / h**2

    return (4 * central(h / 2) - central(h)) / 3


def along(points: list[Tensor], tangents: list[Tensor], t: float, exact: bool = True) -> list[Tensor]:
    """Return the points at time t of the geodesics with these velocities."""
    space = geometry.Product(points)
    with torch.no_grad():
        return (space.exponential if exact else space.retract_second_order)(points, [t * v for v in tangents])


def model_with_buffers() -> nn.Module:
    """Make a model that evaluation changes: running statistics, power iterations, random numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, 6),
            nn.BatchNorm1d(6),
            nn.Tanh(),
            nn.Dropout(0.3),
            nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5)),
            nn.Linear(5, 3),
        ).double()
    model[5].eval()  # layers may differ in mode
    return rsam.nn.constrain(model, geoopt.Sphere(), model[0].weight)


def hessian(model: nn.Module, loss_func: Any, data: Any) -> RiemannianHessian:
    return RiemannianHessian(model, loss_func, model.parameters(), data)


def gauss_newton(model: nn.Module, loss_func: Any, data: Any) -> RiemannianGaussNewton:
    return RiemannianGaussNewton(model, loss_func, model.parameters(), data)


def a_product(operator: Any) -> Tensor:
    return operator @ torch.ones(operator.shape[0], dtype=operator.dtype)


class Breaks(nn.CrossEntropyLoss):
    """Loss that fails after some calls."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyError("broken")
        return super().forward(outputs, targets)
