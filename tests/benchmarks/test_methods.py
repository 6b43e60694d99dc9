"""That each method is what its name says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import rsam
from benchmarks.methods import METHODS
from benchmarks.methods.ambient import AmbientSAM
from benchmarks.runs.configuration import Run
from benchmarks.runs.training import gradient_closure, prepare

RUN = Run("", 0, lr=0.05, dataset="digits", model="tiny_cnn", label_noise=0.0)


def run_of(name: str) -> Run:
    knobs = {"rho": 0.1, "penalty": 1e-3, "weight_decay": 5e-4}
    knob = METHODS[name].knob
    return replace(RUN, method=name, **{knob: knobs[knob]})


def steps(run: Run, count: int) -> tuple[nn.Module, int]:
    """The network after some steps on the first batch, and how often it was evaluated."""
    data, model, optimizer = prepare(run)
    objective = METHODS[run.method].objective(model, run)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(count):
        optimizer.step(gradient_closure(model, optimizer, data.train_images[:64], data.train_labels[:64], objective))
    return model, len(passes)


@pytest.mark.parametrize("name", METHODS)
def test_that_a_step_evaluates_as_many_gradients_as_it_says(name) -> None:
    assert steps(run_of(name), 3)[1] == 3 * METHODS[name].gradients


@pytest.mark.parametrize("name", METHODS)
def test_that_kernels_live_where_the_method_says(name) -> None:
    model, _ = steps(run_of(name), 3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            kernels = module.weight.detach().flatten(1)
            wide = kernels if len(kernels) <= kernels.shape[1] else kernels.mT
            gram = wide @ wide.mT
            unit = torch.allclose(kernels.norm(dim=1), torch.ones(len(kernels)), atol=1e-5)
            orthonormal = torch.allclose(gram, torch.eye(len(gram)), atol=1e-5)
            expected = {"plain": (False, False), "spheres": (True, False), "stiefel": (orthonormal and unit, True)}
            assert (unit, orthonormal) == expected[METHODS[name].manifold]


def test_that_a_peer_s_sam_takes_the_same_steps() -> None:
    plain = {"model": "small_plain_cnn"}
    ours, _ = steps(replace(run_of("sam"), **plain), 10)
    peer, _ = steps(replace(run_of("peer_sam"), **plain), 10)
    for mine, theirs in zip(ours.parameters(), peer.parameters(), strict=True):
        # single precision, ten steps; they add the perturbation's norm in another order
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_that_the_ambient_ascent_is_sam_on_plain_weights() -> None:
    data, twin, _ = prepare(run_of("sgd"))
    sam, _ = steps(replace(run_of("sam"), weight_decay=0.0), 5)
    optimizer = AmbientSAM(twin.parameters(), twin, rho=0.1, lr=RUN.lr, momentum=RUN.momentum)
    for _ in range(5):
        optimizer.step(gradient_closure(twin, optimizer, data.train_images[:64], data.train_labels[:64]))
    for mine, theirs in zip(twin.parameters(), sam.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    for mine, theirs in zip(twin.buffers(), sam.buffers(), strict=True):  # of the first passes only
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_that_the_ambient_ascent_leaves_the_sphere_and_the_weights_do_not() -> None:
    x = rsam.nn.constrain(nn.Linear(3, 1, bias=False), rsam.geometry.KernelSphere())
    slope = torch.tensor([[1.0, 2.0, 2.0]])
    start, seen = x.weight.detach().clone(), []
    optimizer = AmbientSAM(x.parameters(), x, rho=0.3, lr=0.1)

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


def test_that_an_exception_in_the_ambient_ascent_leaves_the_weights() -> None:
    data, model, optimizer = prepare(run_of("ambient_sam"))
    closure = gradient_closure(model, optimizer, data.train_images[:64], data.train_labels[:64])
    before = [p.detach().clone() for p in model.parameters()]
    calls = []

    def failing() -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise ArithmeticError
        return closure()

    with pytest.raises(ArithmeticError):
        optimizer.step(failing)
    for p, copy in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, copy)
