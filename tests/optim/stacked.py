"""Make several points on each manifold, step them, and compare them with points that step alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor

import rsam
from tests.optim.problems import manifold_points

SGD, Adam = rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam
TWO_RUNS = pytest.mark.parametrize(
    ("cls", "options"),
    [(SGD, {"lr": 0.02, "momentum": 0.9, "dampening": 0.5}), (Adam, {"lr": 0.02, "amsgrad": True})],
    ids=["SGD", "Adam"],
)
#: Tolerance in float64. Sums over a stack may have another order than those over one point, and torch 2.14's
#: ``matrix_exp`` of one matrix has errors of up to 3e-11 where that of a stack is exact; over a few steps these add
#: up. A wrong gradient, state or option would make a difference a million times larger.
CLOSE = {"rtol": 1e-8, "atol": 1e-9}


def several(count: int, names: Iterable[str] | None = None) -> dict[str, list[geoopt.ManifoldParameter]]:
    """Make several points on each manifold, which will be stacked."""
    draws = [manifold_points(seed=seed) for seed in range(count)]
    points: dict[str, list[geoopt.ManifoldParameter]] = {}
    for name in names or draws[0]:
        manifold = draws[0][name].manifold
        project = rsam.geometry.geometry_of(manifold).project_point
        points[name] = [geoopt.ManifoldParameter(project(draw[name].data), manifold=manifold) for draw in draws]
    return points


def twins_of(params: Iterable[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Copy points on the same manifolds, and plain ones."""
    copies = []
    for p in params:
        copy = p.detach().to(dtype or p.dtype, copy=True)
        manifold = getattr(p, "manifold", None)
        copies.append(geoopt.ManifoldParameter(copy, manifold=manifold) if manifold else torch.nn.Parameter(copy))
    return copies


def drive(
    optimizers: Sequence[torch.optim.Optimizer],
    params: Sequence[Tensor],
    steps: Iterable[int],
    present: Callable[[int, int], bool] = lambda step, i: True,
) -> None:
    """Step along bounded gradients that pull each parameter to a target, present if ``present(step, i)``."""
    targets = []
    for i, p in enumerate(params):
        generator = torch.Generator().manual_seed(i)
        targets.append(torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype))
    for step in steps:
        for i, (p, target) in enumerate(zip(params, targets, strict=True)):
            away = p.detach() - target
            p.grad = away / (1 + away.abs() ** 2) if present(step, i) else None
        for optimizer in optimizers:
            optimizer.step()


def state_of(optimizer: torch.optim.Optimizer, params: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Copy the state of each parameter."""
    return [
        {k: v.clone() if isinstance(v, Tensor) else v for k, v in optimizer.state.get(p, {}).items()} for p in params
    ]


def assert_near(params: Sequence[Tensor], expected: Sequence[Tensor], names: Sequence[str], **bounds: float) -> None:
    """Assert that parameters are near the expected ones."""
    for name, p, e in zip(names, params, expected, strict=True):
        torch.testing.assert_close(p.data, e.data, **(bounds or CLOSE), msg=lambda m, name=name: f"{name}: {m}")


def assert_same(tree: Any, expected: Any) -> None:
    """Assert that nested lists and dictionaries of tensors are equal bitwise."""
    torch.testing.assert_close(tree, expected, rtol=0, atol=0, equal_nan=True)


def assert_as_alone(
    optimizer: torch.optim.Optimizer,
    params: Sequence[Tensor],
    alone: Sequence[torch.optim.Optimizer],
    twins: Sequence[Tensor],
    names: Sequence[str],
) -> None:
    """Assert that parameters and their state are near those of optimizers with one parameter each."""
    assert_near(params, twins, names)
    for name, p, twin, one in zip(names, params, twins, alone, strict=True):
        state, expected = optimizer.state.get(p, {}), one.state.get(twin, {})
        torch.testing.assert_close(dict(state), dict(expected), **CLOSE, msg=lambda m, name=name: f"{name}: {m}")


PRESENCE = {
    "frozen for a while": lambda step, i: i % 3 != 1 or step not in (2, 3),
    "late": lambda step, i: step >= i % 3,
    "alternating": lambda step, i: (step + i) % 2 == 0,
    "one never": lambda step, i: i % 3 != 1,
    "one at a time": lambda step, i: step % 3 == i % 3,
}


PLAIN_RUNS = {
    "SGD": (
        SGD,
        torch.optim.SGD,
        {},
        [
            {},
            {"momentum": 0.9},
            {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
            {"momentum": 0.9, "nesterov": True, "maximize": True},
        ],
    ),
    "Adam": (
        Adam,
        torch.optim.Adam,
        {},
        [{}, {"amsgrad": True, "weight_decay": 0.1}, {"maximize": True, "betas": (0.5, 0.9), "eps": 1e-3}],
    ),
    "AdamW": (
        Adam,
        torch.optim.AdamW,
        {"decoupled_weight_decay": True},
        [{"weight_decay": 0.1}, {"weight_decay": 0.1, "amsgrad": True, "maximize": True}],
    ),
}


def plain_pair(run: str, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[Any, Any, Any, Any]:
    """Return plain parameters after steps by our optimizer and by torch's."""
    ours, torchs, ours_only, _ = PLAIN_RUNS[run]
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 3), (7,), (2, 3, 2), ())
    params = [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]
    twins = twins_of(params)
    return params, ours(params, lr=0.05, **ours_only, **options), twins, torchs(twins, lr=0.05, **options)
