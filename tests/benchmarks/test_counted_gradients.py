"""That gradient evaluations are counted from what autograd does, not assumed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.methods import METHODS
from benchmarks.methods.riemannian import RIEMANNIAN
from benchmarks.run import Run
from benchmarks.runs.steps import Tally, gradient_closure
from benchmarks.runs.training import train
from benchmarks.workloads.images import Images

#: Four steps.
TINY = Run(Images(batch_size=500, model="tiny_cnn"), "sgd", 0, 0.01, epochs=1, rho=0.05, penalty=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_that_a_row_counts_what_the_method_says(name: str) -> None:
    kernels = "spheres" if METHODS[name] in RIEMANNIAN else "plain"
    row = train(replace(TINY, method=name, workload=replace(TINY.workload, kernels=kernels)))  # type: ignore[type-var]
    # LookSAM ascends in the first of each ten steps
    expected = 4 + 1 if name == "peer_looksam" else 4 * METHODS[name].gradients
    assert row.gradients == pytest.approx(expected, abs=1e-9)


def test_that_a_gradient_that_nobody_takes_is_not_counted() -> None:
    tally, model = Tally(), nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def thrice(closure):  # evaluates the loss three times, and differentiates it twice
        (first,) = torch.autograd.grad(closure(), [model.bias])
        closure()
        return closure() + 0 * first.sum()

    closure = gradient_closure(
        model,
        optimizer,
        torch.ones(4, 3),
        torch.zeros(4).long(),
        thrice,
        differentiated=lambda: tally.differentiated(0.5),
    )
    closure()
    assert tally.gradients == 1.0
