"""Train plain weights by SGD with a curvature penalty, computed by differences of gradients."""

from __future__ import annotations

from torch import nn

import rsam
from benchmarks.methods.method import Method, Objective
from benchmarks.methods.plain import SGD
from benchmarks.run import Run


def _gradient_norm(model: nn.Module, run: Run) -> Objective:
    return rsam.losses.GradientNorm(model.parameters(), weight=run.penalty, method="difference").objective


def _hessian_trace(model: nn.Module, run: Run) -> Objective:
    # where the loss is not convex the trace has no lower bound: negative traces are not penalised
    return rsam.losses.HessianTrace(
        model.parameters(), weight=run.penalty, method="difference", clamp=0.0, seed=run.seed
    ).objective


GRADIENT_NORM = Method("gradient_norm", "SGD, gradient-norm penalty", SGD.build, gradients=2, objective=_gradient_norm)
HESSIAN_TRACE = Method("hessian_trace", "SGD, Hessian-trace penalty", SGD.build, gradients=3, objective=_hessian_trace)
