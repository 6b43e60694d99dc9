"""Define small classifiers for the margin tests, and slow references for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

DOUBLE = torch.float64
Batch = tuple[Tensor, Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=generator(seed))


def classes(count: int, of: int = 3, seed: int = 1) -> Tensor:
    return torch.randint(of, (count,), generator=generator(seed))


def convolutional(dtype: torch.dtype = DOUBLE) -> nn.Module:
    """Make a convolutional network with in-place ReLUs and running statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Conv2d(6, 16, 3),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(16 * 4, 3),
        ).to(dtype)
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.5, 2)
    return model


def images(count: int = 7, dtype: torch.dtype = DOUBLE) -> Batch:
    return normal(count, 2, 6, 6, dtype=dtype), classes(count)


def loader(batch: Batch, *sizes: int) -> list[Batch]:
    return list(zip(*(part.split(list(sizes)) for part in batch), strict=True))


def split(model: nn.Module, at: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Split a sequence of layers after one layer into two functions, without in-place layers."""
    layers = [nn.ReLU() if isinstance(m, nn.ReLU) else m for m in model.eval()]
    return nn.Sequential(*layers[: at + 1]), nn.Sequential(*layers[at + 1 :])


def one_by_one(before: Callable[[Any], Tensor], after: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
    """Compute raw margins by a loop over examples."""
    found = []
    for x, y in zip(*batch, strict=True):
        h = before(x[None]).detach().requires_grad_()
        f = after(h)[0]
        j = max((j for j in range(len(f)) if j != y), key=f.detach().tolist().__getitem__)
        difference = f[y] - f[j]
        (gradient,) = torch.autograd.grad(difference, h)
        found.append(difference.detach() / gradient.norm())
    return torch.stack(found)
