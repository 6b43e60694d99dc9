"""Define small smooth problems for the tests of the penalties."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import geoopt
import torch
from torch import Tensor, nn

import rsam
from rsam.evaluation import at_points
from rsam.losses import FisherTrace, GradientNorm, HessianTrace, Penalty, Sharpness
from tests.optim.problems import manifold_points

DOUBLE = torch.float64
# one parameter on each manifold, beside a plain one
MANIFOLDS = ["plain", "kernel_sphere", "sphere", "stiefel", "canonical", "ball", "lorentz", "spd"]
# every class and method
PENALTIES: dict[str, Callable[..., Penalty]] = {
    "gradient_norm": GradientNorm,
    "gradient_norm_square": lambda params, **o: GradientNorm(params, p=2, **o),
    "gradient_norm_difference": lambda params, **o: GradientNorm(params, method="difference", **o),
    "hessian_trace": HessianTrace,
    "hessian_trace_difference": lambda params, **o: HessianTrace(params, method="difference", **o),
    "fisher_trace": FisherTrace,
    "fisher_trace_difference": lambda params, **o: FisherTrace(params, method="difference", **o),
    "sharpness": lambda params, **o: Sharpness(params, 0.05, **o),
}


class Problem:
    """Smooth loss of points on any manifolds; the outputs, of 2 examples and 3 classes, depend on all points."""

    def __init__(self, points: list[Tensor], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.points = points
        self.mixing = [torch.randn(p.numel(), 6, generator=generator, dtype=p.dtype) / p.numel() for p in points]
        self.targets = torch.tensor([2, 0])

    def outputs(self) -> Tensor:
        mixed = sum(p.flatten() @ m for p, m in zip(self.points, self.mixing, strict=True))
        return (2 * torch.sin(mixed) + mixed**2).view(2, 3)

    def loss(self) -> Tensor:
        return nn.functional.cross_entropy(self.outputs(), self.targets)

    def both(self) -> tuple[Tensor, Tensor]:
        outputs = self.outputs()
        return nn.functional.cross_entropy(outputs, self.targets), outputs


def on(name: str) -> Problem:
    """Make a problem with two parameters, on two manifolds of the same kind, and a plain one."""
    point = manifold_points()[name]
    again = geoopt.ManifoldParameter(point.detach().clone(), manifold=point.manifold)
    return Problem([point, nn.Parameter(torch.linspace(-1, 1, 4, dtype=DOUBLE)), again])


def closure_for(penalty: Penalty, problem: Problem, objective: bool = False) -> Callable[[], Tensor]:
    """Return the closure that this penalty takes."""
    if not isinstance(penalty, FisherTrace):
        return problem.loss
    return problem.both if objective else problem.outputs


def derivative(value: Callable[[], Tensor], params: list[Tensor], tangents: list[Tensor], step: float) -> float:
    """Take a central difference of a number along second-order curves."""

    def at(t: float) -> float:
        with torch.no_grad():
            points = rsam.geometry.Product(params).retract_second_order(params, [t * v for v in tangents])
        with at_points(params, points):
            return value().item()

    return (at(step) - at(-step)) / (2 * step)


def signs(size: int) -> Iterator[Tensor]:
    """List all vectors of signs."""
    for combination in itertools.product((-1.0, 1.0), repeat=size):
        yield torch.tensor(combination, dtype=DOUBLE)
