"""That the ablation's ascent leaves the manifold, and is SAM's otherwise."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.methods.ambient import AmbientAscent
from benchmarks.runs.steps import gradient_closure
from tests.benchmarks.training_steps import EXACT, RUN, Bowl, prepared, run_of, steps


def ambient(model: nn.Module, rho: float, project: bool = False, **options: float) -> AmbientAscent:
    base = rsam.optim.RiemannianSGD(model.parameters(), **options)
    return AmbientAscent(base, model, rho, project=project)


def test_that_the_ambient_ascent_is_sam_on_plain_weights() -> None:
    data, twin, _ = prepared(run_of("sgd"))
    sam, _ = steps(replace(run_of("sam"), weight_decay=0.0), 5)
    optimizer = ambient(twin, 0.1, lr=RUN.lr, momentum=RUN.momentum)
    for _ in range(5):
        optimizer.step(gradient_closure(twin, optimizer, data.train_images[:64], data.train_labels[:64]))
    for mine, theirs in zip(twin.parameters(), sam.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    for mine, theirs in zip(twin.buffers(), sam.buffers(), strict=True):  # updated by the first passes only
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_that_the_ambient_ascent_leaves_the_sphere_and_the_weights_do_not() -> None:
    x = rsam.nn.constrain(nn.Linear(3, 1, bias=False), rsam.geometry.KernelSphere())
    slope = torch.tensor([[1.0, 2.0, 2.0]])
    start, seen = x.weight.detach().clone(), []
    optimizer = ambient(x, 0.3, lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        seen.append(x.weight.detach().clone())
        loss = (x.weight * slope).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(seen[0], start)
    torch.testing.assert_close(seen[1], start + 0.3 * slope / 3)  # the slope's norm is 3
    torch.testing.assert_close(x.weight.norm(), torch.tensor(1.0))
    assert not torch.equal(x.weight, start)


def test_that_the_ambient_ascent_is_that_of_rsam_on_plain_weights_with_decay_and_momentum() -> None:
    ours, twin = Bowl(), Bowl()
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    peer = ambient(ours, 0.2, **settings)
    sam = rsam.RSAM(twin.parameters(), torch.optim.SGD, rho=0.2, **settings)

    def closure(model: Bowl, optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
        def evaluate() -> Tensor:
            optimizer.zero_grad()
            loss = model.loss()
            loss.backward()
            return loss

        return evaluate

    for _ in range(6):
        losses = peer.step(closure(ours, peer)), sam.step(closure(twin, sam))
        torch.testing.assert_close(*losses, **EXACT)
        torch.testing.assert_close(ours.position(), twin.position(), **EXACT)


def test_that_an_exception_in_the_ambient_ascent_leaves_batch_statistics() -> None:
    data, model, optimizer = prepared(run_of("ambient_sam"))
    images, labels = data.train_images[:64], data.train_labels[:64]
    weights = [p.detach().clone() for p in model.parameters()]
    once = deepcopy(model)
    once(images)
    calls = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)  # updates the statistics
        calls.append(any(not torch.equal(p, q) for p, q in zip(model.parameters(), weights, strict=True)))
        if len(calls) == 2:
            raise ArithmeticError
        loss.backward()
        return loss

    with pytest.raises(ArithmeticError):
        optimizer.step(closure)
    assert calls == [False, True]  # the second call is at other weights
    for actual, expected in zip(model.parameters(), weights, strict=True):
        assert torch.equal(actual, expected)
    for actual, expected in zip(model.buffers(), once.buffers(), strict=True):
        assert torch.equal(actual, expected)
