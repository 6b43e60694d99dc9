"""Measure the memory that a step of a SAM-like optimizer takes beside weights and gradients."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import geoopt
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.profiler import ProfilerActivity, profile

import rsam
from benchmarks.report.table import markdown_table
from benchmarks.studies.overhead.section import Data, Section

__all__ = ["measure", "peak", "report"]

_COUNT, _SIZE = 100, 10_000
_MIB = 2**20


def _plain() -> list[Tensor]:
    return [torch.nn.Parameter(torch.randn(_SIZE)) for _ in range(_COUNT)]


def _spheres() -> list[Tensor]:
    sphere = geoopt.Sphere()
    points = (normalize(torch.randn(_SIZE), dim=-1) for _ in range(_COUNT))
    return [geoopt.ManifoldParameter(x, manifold=sphere) for x in points]


def peak(run: Callable[[], object]) -> int:
    """Return the peak of bytes allocated during a call, beyond those allocated before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    now = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def _contenders() -> dict[str, tuple[list[Tensor], Callable[[list[Tensor]], Any], bool]]:
    options: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9}
    optimizers: dict[str, tuple[list[Tensor], Callable[[list[Tensor]], Any], bool]] = {
        "geoopt RiemannianSGD, spheres": (_spheres(), lambda ps: geoopt.optim.RiemannianSGD(ps, **options), False),
        "RiemannianSGD, spheres": (_spheres(), lambda ps: rsam.optim.RiemannianSGD(ps, **options), False),
        "RSAM, spheres": (_spheres(), lambda ps: rsam.RSAM(ps, **options), True),
        "torch SGD, plain": (_plain(), lambda ps: torch.optim.SGD(ps, **options), False),
        "RSAM over torch SGD, plain": (_plain(), lambda ps: rsam.RSAM(ps, torch.optim.SGD, **options), True),
    }
    if find_spec("pytorch_optimizer"):
        from pytorch_optimizer import SAM

        optimizers["pytorch_optimizer.SAM, plain"] = (_plain(), lambda ps: SAM(ps, torch.optim.SGD, **options), True)
    return optimizers


def measure() -> Data:
    """Measure the bytes that two steps of each optimizer allocate."""
    peaks = {}
    for label, (params, make, sharp) in _contenders().items():
        optimizer = make(params)
        gradients = [1e-3 * torch.randn_like(p) for p in params]
        weights = sum(p.numel() * p.element_size() for p in params)

        def closure(
            optimizer: Any = optimizer, params: list[Tensor] = params, gradients: list[Any] = gradients
        ) -> None:
            optimizer.zero_grad()
            for p, g in zip(params, gradients, strict=True):
                p.grad = g.clone()  # a new tensor, as a backward pass makes it

        def two_steps(optimizer: Any = optimizer, closure: Any = closure, sharp: bool = sharp) -> None:
            for _ in range(2):
                if sharp:
                    optimizer.step(closure)
                else:
                    closure()
                    optimizer.step()

        peaks[label] = peak(two_steps) - weights  # without the gradients that each pass makes
    return {"count": _COUNT, "size": _SIZE, "weights": weights, "peaks": peaks}


def report(data: Data) -> Section:
    """Divide by the bytes of the weights; a table."""
    rows = [(label, f"{most / _MIB:.1f}", f"{most / data['weights']:.2f}") for label, most in data["peaks"].items()]
    text = (
        f"{data['count']} parameters of {data['size']} entries each, float32, momentum 0.9: peak memory of two steps "
        "beyond weights and gradients, including momentum and copies of weights.\n\n"
        f"{markdown_table(('optimizer', 'MiB', 'relative to the weights'), rows)}"
    )
    return Section("Memory", text)
