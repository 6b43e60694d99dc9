"""That training with each penalty lowers its quantity, in a small network with batch norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.workloads.images import Images
from rsam import curvature, losses

WORKLOAD = Images("digits", "tiny_cnn")
EPOCHS = 4
EXAMPLES = 256


def trained(make: Callable[[Any], losses.Penalty] | None) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    data, model = WORKLOAD.data(seed=0), WORKLOAD.prepare(0, "test").model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    penalty = None if make is None else make(model.named_parameters())
    order = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(data.train_labels), generator=order)[:1152].split(WORKLOAD.batch_size):

            def closure(batch: Tensor = batch) -> Any:
                outputs = model(data.train_images[batch])
                loss = cross_entropy(outputs, data.train_labels[batch])
                return (loss, outputs) if isinstance(penalty, losses.FisherTrace) else loss

            optimizer.zero_grad()
            (closure() if penalty is None else penalty.objective(closure)).backward()
            optimizer.step()
    return model, (data.train_images[:EXAMPLES], data.train_labels[:EXAMPLES])


def gradient_norm(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    return curvature.gradient_norm(model, nn.CrossEntropyLoss(), model.parameters(), data)


def trace(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    hessian = curvature.RiemannianHessian(model, nn.CrossEntropyLoss(), model.parameters(), data)
    return float(curvature.trace(hessian, 20))


def trace_by_differences(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    penalty = losses.HessianTrace(model.parameters(), method="difference", probes=10, seed=1)
    return float(penalty(lambda: cross_entropy(model(data[0]), data[1])).detach())


def fisher_trace(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    return float(curvature.fisher_trace(model, nn.CrossEntropyLoss(), model.parameters(), data, 20))


def sharpness(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    rise = curvature.sharpness(
        model, nn.CrossEntropyLoss(), model.parameters(), data, rho=0.01, kind="average", probes=10
    )
    return float(rise)


# the network has kinks, so that each form of the trace is measured by itself
CASES: list[tuple[str, Callable[[Any], losses.Penalty], Callable[..., float]]] = [
    ("gradient norm exact", lambda p: losses.GradientNorm(p, weight=1.0), gradient_norm),
    ("gradient norm difference", lambda p: losses.GradientNorm(p, weight=1.0, method="difference"), gradient_norm),
    ("squared gradient norm", lambda p: losses.GradientNorm(p, p=2, weight=0.5, method="difference"), gradient_norm),
    ("Hessian trace exact", lambda p: losses.HessianTrace(p, weight=2e-3, clamp=0.0), trace),
    (
        "Hessian trace difference",
        lambda p: losses.HessianTrace(p, weight=1e-3, method="difference"),
        trace_by_differences,
    ),
    ("Fisher trace exact", lambda p: losses.FisherTrace(p, weight=3e-3), fisher_trace),
    ("Fisher trace difference", lambda p: losses.FisherTrace(p, weight=3e-3, method="difference"), fisher_trace),
    ("sharpness", lambda p: losses.Sharpness(p, rho=0.01, weight=20.0), sharpness),
]


@pytest.fixture(scope="module")
def plain() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    return trained(None)


@pytest.mark.parametrize(("name", "make", "measure"), CASES, ids=[name for name, _, _ in CASES])
def test_that_training_with_it_at_least_halves_it(name, make, measure, plain) -> None:
    assert measure(*trained(make)) < measure(*plain) / 2
