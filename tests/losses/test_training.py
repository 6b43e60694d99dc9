"""That penalties work within training: optimizers, accumulation, precision, resuming."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam.losses import FisherTrace, GradientNorm, Sharpness
from tests.losses.problems import DOUBLE, PENALTIES, closure_for, on
from tests.optim.problems import network

RANDOM = [n for n in PENALTIES if not n.startswith("gradient_norm")]


@pytest.mark.parametrize("name", RANDOM)
def test_a_resumed_run_draws_the_same_probes(name) -> None:
    problem = on("sphere")
    penalty, resumed = (PENALTIES[name](problem.points) for _ in range(2))
    closure = closure_for(penalty, problem)
    first = penalty(closure).item()
    resumed.load_state_dict(copy.deepcopy(penalty.state_dict()))
    again = copy.deepcopy(penalty)
    later = [penalty(closure).item() for _ in range(3)]
    assert [resumed(closure).item() for _ in range(3)] == later
    assert again.state_dict()["_extra_state"].keys() == {"cpu"}
    assert any(value != first for value in later)  # probes are new in every call
    assert PENALTIES[name](problem.points)(closure).item() == first
    assert PENALTIES[name](problem.points, seed=1)(closure).item() != first


@pytest.mark.parametrize("name", RANDOM)
def test_a_state_loaded_but_not_used_is_kept(name) -> None:
    problem = on("plain")
    penalty, between, last = (PENALTIES[name](problem.points) for _ in range(3))
    closure = closure_for(penalty, problem)
    penalty(closure)
    between.load_state_dict(penalty.state_dict())
    last.load_state_dict(between.state_dict())
    assert last(closure).item() == penalty(closure).item()


@pytest.mark.parametrize("method", ["exact", "difference"])
def test_within_rsam_both_passes_are_penalised(method) -> None:
    """The reference is SAM and the penalty of the squared gradient norm by hand."""
    model, loss = network()
    twin = copy.deepcopy(model)
    weight, rho, lr = 0.1, 0.05, 0.2
    optimizer = rsam.RSAM(model.parameters(), torch.optim.SGD, rho=rho, lr=lr)
    penalty = GradientNorm(model.parameters(), p=2, weight=weight, method=method)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = penalty.objective(loss)
        value.backward()
        return value

    def by_hand(params: list[Tensor]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(20, 5, generator=generator, dtype=DOUBLE)
        targets = torch.randint(3, (20,), generator=generator)
        w1, b1, w2, b2 = params
        plain = nn.functional.cross_entropy(torch.tanh(inputs @ w1.T + b1) @ w2.T + b2, targets)
        gradient = torch.autograd.grad(plain, params, create_graph=True)
        total = plain + weight * sum(g.pow(2).sum() for g in gradient)
        return torch.autograd.grad(total, params)

    params = list(twin.parameters())
    for _ in range(3):
        optimizer.step(closure)
        gradient = by_hand(params)
        norm = sum(g.pow(2).sum() for g in gradient).sqrt()
        ahead = [(p + rho * g / norm).detach().requires_grad_() for p, g in zip(params, gradient, strict=True)]
        params = [(p - lr * g).detach().requires_grad_() for p, g in zip(params, by_hand(ahead), strict=True)]
    for p, q in zip(model.parameters(), params, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)  # the error of the difference is its step, 1e-8


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_accumulate_over_micro_batches(name) -> None:
    problem, other = on("ball"), on("ball")
    other.points = problem.points
    other.targets = torch.tensor([1, 1])
    penalty, again = (PENALTIES[name](problem.points) for _ in range(2))
    expected = []
    for part in (problem, other):
        total = penalty.objective(closure_for(penalty, part, objective=True))
        expected.append(torch.autograd.grad(total / 2, problem.points))
    for part in (problem, other):
        (again.objective(closure_for(again, part, objective=True)) / 2).backward()
    for p, a, b in zip(problem.points, *expected, strict=True):
        torch.testing.assert_close(p.grad, a + b)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_scaled_loss_has_scaled_gradients(name) -> None:
    problem = on("sphere")
    penalty, again = (PENALTIES[name](problem.points) for _ in range(2))
    expected = torch.autograd.grad(penalty.objective(closure_for(penalty, problem, True)), problem.points)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(again.objective(closure_for(again, problem, True))).backward()
    for p, g in zip(problem.points, expected, strict=True):
        torch.testing.assert_close(p.grad, 1024 * g)


def half_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 3))
    rsam.nn.constrain(model[0], rsam.geometry.KernelSphere())
    images, labels = torch.randn(64, 8), torch.arange(64) % 3

    def both() -> tuple[Tensor, Tensor]:
        outputs = model(images)
        return nn.functional.cross_entropy(outputs, labels), outputs

    return model, both


# A step other than the default, which in bfloat16 is so long that the bias of the difference would hide all else.
LONG = {"gradient_norm_difference": {"step": 0.1}, "fisher_trace_difference": {"step": 0.1}}


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("name", PENALTIES)
def test_under_autocast(name, outside) -> None:
    """The result is close to that in full precision, with autocast around the call or inside the closure."""
    values, gradients = [], []
    for enabled in (False, True):
        model, both = half_network()
        penalty = PENALTIES[name](model.parameters(), **LONG.get(name, {}))
        if "trace_difference" in name and name.startswith("hessian"):
            penalty.step = 0.1
        if isinstance(penalty, Sharpness):
            penalty.rho = 0.1
        plain = both if isinstance(penalty, FisherTrace) else lambda both=both: both()[0]

        def inside(plain=plain):
            with torch.autocast("cpu", torch.bfloat16):
                return plain()

        if not enabled:
            total = penalty.objective(plain)
        elif outside:
            with torch.autocast("cpu", torch.bfloat16):
                total = penalty.objective(plain)
        else:
            total = penalty.objective(inside)
        total.backward()
        values.append(total.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.isfinite(gradients[1]).all()
    # bfloat16 has 8 bits: 0.4 % in each number, some tens of per cent in sums and differences
    assert values[1] == pytest.approx(values[0], rel=0.1)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.9


@pytest.mark.parametrize("name", PENALTIES)
def test_geometry_and_derivatives_ignore_autocast(name) -> None:
    """If the closure turns it off, results equal those without it, also matrix products of a Stiefel manifold."""
    problem = on("stiefel")
    for p in problem.points:
        p.data = p.data.float()
    problem.mixing = [m.float() for m in problem.mixing]
    penalty, again = (PENALTIES[name](problem.points) for _ in range(2))
    penalty.step = again.step = 0.05  # the default would be coarser under autocast
    closure = closure_for(penalty, problem)

    def precise() -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return closure()

    expected = penalty(closure)
    with torch.autocast("cpu", torch.bfloat16):
        actual = again(precise)
    torch.testing.assert_close(actual, expected)
    for a, b in zip(*(torch.autograd.grad(v, problem.points) for v in (actual, expected)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", PENALTIES)
def test_parameters_in_bfloat16(name) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3)).bfloat16()
    rsam.nn.constrain(model[0], rsam.geometry.KernelSphere())
    images, labels = torch.randn(16, 8).bfloat16(), torch.arange(16) % 3
    penalty = PENALTIES[name](model.parameters(), weight=0.01)

    def both() -> tuple[Tensor, Tensor]:
        outputs = model(images)
        return nn.functional.cross_entropy(outputs, labels), outputs

    penalty.objective(both if isinstance(penalty, FisherTrace) else lambda: both()[0]).backward()
    assert all(p.grad.dtype == torch.bfloat16 and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", PENALTIES)
def test_float16_is_refused_where_derivatives_would_vanish(name) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.randn(6, 4), torch.arange(6) % 3
    penalty = PENALTIES[name](model.named_parameters())

    def both() -> tuple[Tensor, Tensor]:
        outputs = 1e-8 * model(x.to(model[0].weight.dtype)).float()
        return nn.functional.cross_entropy(outputs, y), outputs

    fisher = isinstance(penalty, FisherTrace)
    with torch.autocast("cpu", torch.float16):
        assert not any(g.any() for g in torch.autograd.grad(both()[0], [*model.parameters()]))  # why
        for call, index in ((penalty, int(fisher)), (penalty.objective, slice(None) if fisher else 0)):
            with pytest.raises(ValueError, match=r"float16 of the autocast around this call; use bfloat16 or no auto"):
                call(lambda index=index: both()[index])

    def inside(index):
        with torch.autocast("cpu", torch.float16):
            return both()[index]

    if hasattr(torch.ones((), requires_grad=True).clone().grad_fn, "_input_metadata"):  # not in torch 2.4
        for call, index in ((penalty, int(fisher)), (penalty.objective, slice(None) if fisher else 0)):
            with pytest.raises(ValueError, match="float16 of a part of the loss; use an autocast to bfloat16 or none"):
                call(lambda index=index: inside(index))
    model.half()
    with pytest.raises(ValueError, match=r"float16 of parameter '0\.weight' .*; convert the model to bfloat16 or"):
        penalty(lambda: both()[fisher])
