"""That RSAM on plain parameters is SAM as in other libraries."""

from __future__ import annotations

import copy

import pytest
import pytorch_optimizer
import torch

import rsam
from tests.optim.problems import closure_of, network

BASES = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}),
    (torch.optim.AdamW, {"lr": 0.01}),
    (rsam.optim.RiemannianSGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}),
]


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("base", "options"), BASES)
def test_a_hundred_steps_agree_with_pytorch_optimizer(base, options, adaptive) -> None:
    model, loss = network()
    ours = rsam.RSAM(model.parameters(), base, rho=0.2, adaptive=adaptive, **options)
    start = copy.deepcopy(model.state_dict())
    for _ in range(100):
        ours.step(closure_of(ours, loss))
    expected = [p.detach().clone() for p in model.parameters()]

    model.load_state_dict(start)
    # the peer has no RiemannianSGD, which on plain parameters is SGD
    peer_base = torch.optim.SGD if base is rsam.optim.RiemannianSGD else base
    peer = pytorch_optimizer.SAM(model.parameters(), peer_base, rho=0.2, adaptive=adaptive, **options)
    closure = closure_of(peer, loss)
    for _ in range(100):
        closure()  # the peer expects the gradients of the first pass
        peer.step(closure)
    for p, e in zip(model.parameters(), expected, strict=True):
        # we promise 1e-6; only the order of operations differs
        assert torch.linalg.vector_norm(p - e) <= 1e-6 * torch.linalg.vector_norm(p)


@pytest.mark.parametrize("transport", ["vector", "pullback", "project"])
@pytest.mark.parametrize("ascent", ["retraction", "exponential"])
def test_every_transport_and_ascent_is_the_same_on_plain_parameters(transport, ascent) -> None:
    results = []
    for options in ({}, {"transport": transport, "ascent": ascent}):
        model, loss = network()
        opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.1, **options)
        for _ in range(3):
            opt.step(closure_of(opt, loss))
        results.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("adaptive", [False, True])
def test_it_climbs_on_complex_parameters_where_p_squared_would_descend(adaptive) -> None:
    """Other libraries have this defect with adaptive=True, since p^2 of an imaginary p is negative."""
    start = torch.tensor([1j, 2j])
    w = torch.nn.Parameter(start.clone())
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.0, rho=0.1, adaptive=adaptive)
    (w.abs() ** 2).sum().backward()
    opt.first_step()
    # e = rho s^2 g / || s g || with g = 2 w and the scale s, which is |w| or one
    g, scale = 2 * start, start.abs() if adaptive else torch.ones(2)
    torch.testing.assert_close(w.detach(), start + 0.1 * scale**2 * g / torch.linalg.vector_norm(scale * g))


def test_two_groups_have_their_own_radius_and_share_the_norm() -> None:
    a, b, c = (torch.nn.Parameter(torch.full((2,), float(v))) for v in (1, 2, 3))
    groups = [{"params": [a]}, {"params": [b], "rho": 0.5}, {"params": [c], "rho": 0.0}]
    opt = rsam.RSAM(groups, torch.optim.SGD, lr=0.1, rho=0.1)
    gradient = torch.tensor([3.0, 4.0])
    for p in (a, b, c):
        p.grad = gradient.clone()
    opt.first_step()
    norm = 5 * 2**0.5  # a group that is not perturbed does not enter the norm
    torch.testing.assert_close(a.detach(), 1 + 0.1 * gradient / norm)
    torch.testing.assert_close(b.detach(), 2 + 0.5 * gradient / norm)
    assert torch.equal(c.detach(), torch.full((2,), 3.0))
    assert opt.grad_norm == pytest.approx(norm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_undoing_the_ascent_does_not_drift_in_low_precision(dtype) -> None:
    """Other libraries subtract the perturbation, which loses bits (6e-4 in 1000 steps in bfloat16); a copy does not."""
    model, loss = network(dtype)
    start = [p.detach().clone() for p in model.parameters()]
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.0, rho=0.3)
    for _ in range(20):
        opt.step(closure_of(opt, loss))
    assert all(torch.equal(p, s) for p, s in zip(model.parameters(), start, strict=True))
