"""Collect estimators of the trace and the top eigenvalue by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import curvlinops
import torch
from torch import Tensor, nn

import rsam

__all__ = ["ESTIMATORS", "Problem"]

#: Number of products per stochastic estimate: divisible by 2 for XTrace, and by 3 for Hutch++.
PRODUCTS = 18


@dataclass(frozen=True)
class Problem:
    """Network with a batch and the operator of its Hessian."""

    model: nn.Module
    data: tuple[Tensor, Tensor]

    @property
    def params(self) -> list[Tensor]:
        return list(self.model.parameters())

    def hessian(self) -> rsam.curvature.RiemannianHessian:
        return rsam.curvature.RiemannianHessian(self.model, nn.CrossEntropyLoss(), self.params, self.data)

    def loss(self) -> Tensor:
        return nn.functional.cross_entropy(self.model(self.data[0]), self.data[1])


Estimator = Callable[[Problem, Any, int], float]


def _trace(**options: Any) -> Estimator:
    return lambda problem, operator, seed: float(rsam.curvature.trace(operator, PRODUCTS, seed=seed, **options))


def _hutchpp(problem: Problem, operator: Any, seed: int) -> float:
    torch.manual_seed(seed)
    return float(curvlinops.hutchpp_trace(operator, PRODUCTS))


def _difference(problem: Problem, operator: Any, seed: int) -> float:
    # by three-point differences; only the value is used, not its gradient
    penalty = rsam.losses.HessianTrace(problem.params, method="difference", probes=PRODUCTS, seed=seed)
    return float(penalty(problem.loss).detach())


def _pyhessian(problem: Problem, operator: Any, seed: int) -> float:
    torch.manual_seed(seed)
    # a larger tolerance would stop it as soon as two means are close by chance
    values = operator.trace(maxIter=PRODUCTS, tol=-float("inf"))
    return sum(values) / len(values)


def _pyhessian_top(problem: Problem, operator: Any, seed: int) -> float:
    torch.manual_seed(seed)
    return float(operator.eigenvalues()[0][0])


def _top(problem: Problem, operator: Any, seed: int) -> float:
    return float(rsam.curvature.top_eigenvalues(operator, seed=seed).values[0])


def _make_pyhessian(problem: Problem) -> Any:
    import pyhessian

    return pyhessian.hessian(problem.model, nn.CrossEntropyLoss(), data=problem.data, cuda=False)


@dataclass(frozen=True)
class Named:
    """Estimator with its quantity, its operator, and whether it supports manifolds."""

    quantity: str
    estimate: Estimator
    operator: Callable[[Problem], Any] = Problem.hessian
    riemannian: bool = True


#: Estimators that are measured over many seeds.
ESTIMATORS: dict[str, Named] = {
    "Hutchinson, normal": Named("trace", _trace(distribution="normal")),
    "Hutchinson, Rademacher": Named("trace", _trace()),
    "Hutch++ (curvlinops)": Named("trace", _hutchpp),
    "XTrace": Named("trace", _trace(method="xtrace")),
    "three-point differences": Named("trace", _difference),
    "PyHessian": Named("trace", _pyhessian, _make_pyhessian, riemannian=False),
    "Lanczos": Named("top eigenvalue", _top),
    "PyHessian, power iteration": Named("top eigenvalue", _pyhessian_top, _make_pyhessian, riemannian=False),
}
