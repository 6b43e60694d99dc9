"""That with ascents in every k-th step only, the steps between are those of the base optimizer."""

from __future__ import annotations

import copy
import io

import pytest
import torch

import rsam
from tests.optim.problems import closure_of, copies, equal, manifold_points, network, robust

CHOSEN = ("sphere", "stiefel", "lorentz", "spd", "plain")
BASES = [
    (rsam.optim.RiemannianSGD, {"lr": 0.01, "momentum": 0.9}),
    (rsam.optim.RiemannianAdam, {"lr": 0.01}),
]


def _problem(base, **options):
    """Make a problem in float32, in which differences of rounding are visible."""
    points = manifold_points(torch.float32)
    params = [points[name] for name in CHOSEN]
    return params, rsam.RSAM(params, base, **options), robust(params)


def _counted(closure, params=()):
    """Return a closure, and the list of the weights at each of its calls."""
    calls = []

    def counted():
        calls.append(copies(params))
        return closure()

    return counted, calls


@pytest.mark.parametrize(("base", "options"), BASES)
@pytest.mark.parametrize("every", [1, 2, 3])
def test_that_it_ascends_in_steps_0_k_2k_and_is_the_base_between_them(every, base, options) -> None:
    params, opt, loss = _problem(base, every=every, **options)
    for step in range(7):
        assert opt.ascends == (step % every == 0)
        closure, calls = _counted(closure_of(opt, loss), params)
        expected = None
        if not opt.ascends:
            expected, twin = copy.deepcopy((params, opt.base_optimizer))
            for p, g in zip(expected, torch.autograd.grad(loss(), params), strict=True):
                p.grad = g
            twin.step()
        before, value = copies(params), loss().item()
        assert opt.step(closure).item() == value
        assert len(calls) == (2 if step % every == 0 else 1)
        assert equal(calls[0], before)
        if expected is None:
            assert not equal(calls[1], before)
            assert opt.grad_norm > 0
        else:
            assert equal(params, expected)
            assert opt.grad_norm is None


def test_that_the_steps_between_are_torchs_own() -> None:
    """Every third step is one of SAM, written in ten lines."""
    model, loss = network()
    opt = rsam.RSAM(model.parameters(), torch.optim.AdamW, lr=0.01, rho=0.2, every=3)
    for _ in range(10):
        opt.step(closure_of(opt, loss))
    ours = copies(model.parameters())

    model, loss = network()
    params = list(model.parameters())
    adamw = torch.optim.AdamW(params, lr=0.01)
    for step in range(10):
        gradients = torch.autograd.grad(loss(), params)
        if step % 3 == 0:
            norm, w = sum(g.square().sum() for g in gradients).sqrt(), copies(params)
            with torch.no_grad():
                for p, g in zip(params, gradients, strict=True):
                    p.add_(0.2 * g / norm)
            gradients = torch.autograd.grad(loss(), params)
            with torch.no_grad():
                for p, x in zip(params, w, strict=True):
                    p.copy_(x)
        for p, g in zip(params, gradients, strict=True):
            p.grad = g
        adamw.step()
    for a, b in zip(ours, params, strict=True):
        # rounding; Adam divides by roots of squares, the smallest of which are 1e-8
        torch.testing.assert_close(a, b.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("direction", ["gradient", "momentum"])
@pytest.mark.parametrize(("base", "options"), BASES)
def test_that_loops_in_halves_save_the_evaluation_too(base, options, direction) -> None:
    results, evaluations = [], []
    for halves in (False, True):
        params, opt, loss = _problem(base, every=3, direction=direction, **options)
        counted, calls = _counted(loss)
        for _ in range(7):
            if not halves:
                opt.step(closure_of(opt, counted))
                continue
            if direction == "gradient" or not opt.ascends:
                opt.zero_grad()
                counted().backward()
            if opt.ascends:
                opt.first_step(zero_grad=True)
                counted().backward()
                opt.second_step()
            else:
                assert opt.step() is None
        results.append(copies(params))
        evaluations.append(len(calls))
    assert equal(*results)
    assert evaluations == ([10, 10] if direction == "gradient" else [7, 7])


def test_that_halves_without_an_ascent_stay_where_they_are() -> None:
    """Loops that do not know of ``every`` still work, at the cost of two evaluations."""
    results = []
    for halves in (False, True):
        params, opt, loss = _problem(rsam.optim.RiemannianSGD, lr=0.01, momentum=0.9, every=2)
        for _ in range(4):
            if not halves:
                opt.step(closure_of(opt, loss))
                continue
            loss().backward()
            before, ascends = copies(params), opt.ascends
            opt.first_step(zero_grad=True)
            assert equal(params, before) != ascends
            loss().backward()
            opt.second_step(zero_grad=True)
        results.append(copies(params))
    assert equal(*results)


def test_that_a_step_without_a_closure_is_refused_where_it_ascends() -> None:
    w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, every=2)
    w.grad = torch.tensor([3.0, 4.0])
    with pytest.raises(
        RuntimeError, match=r"needs a closure .*first_step\(\) after backward.*second_step\(\) after.*loops"
    ):
        opt.step()
    assert torch.equal(w.detach(), torch.tensor([1.0, 2.0]))
    assert opt.ascends
    opt.first_step()
    w.grad = torch.tensor([3.0, 4.0])
    opt.step()  # the second half
    torch.testing.assert_close(w.detach(), torch.tensor([0.7, 1.6]))
    assert not opt.ascends
    opt.step()
    torch.testing.assert_close(w.detach(), torch.tensor([0.4, 1.2]))
    with pytest.raises(RuntimeError, match="needs a closure"):
        opt.step()


@pytest.mark.parametrize("taken", [4, 5, 6])
@pytest.mark.parametrize(("base", "options"), BASES)
def test_that_a_run_resumed_within_a_cycle_continues_bitwise(base, options, taken) -> None:
    params, opt, loss = _problem(base, every=3, **options)
    for _ in range(taken):
        opt.step(closure_of(opt, loss))
    buffer = io.BytesIO()
    torch.save({"opt": opt.state_dict(), "params": copies(params)}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)

    again, resumed, same_loss = _problem(base, every=3, **options)
    with torch.no_grad():
        for p, x in zip(again, saved["params"], strict=True):
            p.copy_(x)
    resumed.load_state_dict(saved["opt"])
    assert not equal(params, _problem(base, **options)[0])
    for _ in range(4):
        assert resumed.ascends == opt.ascends
        resumed.step(closure_of(resumed, same_loss))
        opt.step(closure_of(opt, loss))
    assert equal(params, again)


def test_that_a_checkpoint_from_before_the_counter_loads() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    saved = rsam.RSAM([w], torch.optim.SGD, lr=0.1).state_dict()
    for group in saved["param_groups"]:
        del group["steps_since_ascent"]
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, every=2)
    opt.load_state_dict(saved)
    counts = []
    for _ in range(3):
        closure, calls = _counted(closure_of(opt, lambda: w.square().sum()))
        opt.step(closure)
        counts.append(len(calls))
    assert counts == [2, 1, 2]


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_that_a_step_which_is_not_taken_does_not_count(policy) -> None:
    w = torch.nn.Parameter(torch.ones(2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, every=3, nonfinite=policy)

    def step(bad_pass: int | None) -> None:
        calls = []

        def closure() -> torch.Tensor:
            calls.append(None)
            value = closure_of(opt, lambda: w.square().sum())()
            if len(calls) == bad_pass:
                w.grad[0] = float("nan")
            return value

        before = w.detach().clone()
        if bad_pass is not None and policy == "raise":
            with pytest.raises(rsam.NotFinite):
                opt.step(closure)
        else:
            opt.step(closure)
        assert torch.equal(w.detach(), before) == (bad_pass is not None)

    for bad_pass in (1, 2, None):
        assert opt.ascends
        step(bad_pass)
    for bad_pass in (1, None, 1, None):  # steps between ascents have one pass
        assert not opt.ascends
        step(bad_pass)
    assert opt.ascends


def test_that_an_exception_does_not_count() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, every=2)
    with pytest.raises(ZeroDivisionError):
        opt.step(lambda: 1 / 0)
    assert opt.ascends
    opt.step(closure_of(opt, lambda: w.square().sum()))
    with pytest.raises(ZeroDivisionError):
        opt.step(lambda: 1 / 0)
    assert not opt.ascends


def test_that_late_sam_is_a_schedule_of_the_radius() -> None:
    """With rho = 0 in two epochs (Zhou et al. 2024) steps equal the base's, also in cost; later ones ascend."""
    params, opt, loss = _problem(rsam.optim.RiemannianSGD, lr=0.01, momentum=0.9, rho=0.1, every=2)
    bare, _, bare_loss = _problem(rsam.optim.RiemannianSGD, lr=0.01)
    base = rsam.optim.RiemannianSGD(bare, lr=0.01, momentum=0.9)
    schedule = rsam.optim.LambdaRho(opt, lambda epoch: float(epoch >= 2))
    counts = []
    for epoch in range(4):
        for _ in range(2):
            assert opt.ascends == (epoch >= 2 and len(counts) % 2 == 0)
            closure, calls = _counted(closure_of(opt, loss))
            opt.step(closure)
            base.step(closure_of(base, bare_loss))
            counts.append(len(calls))
        assert equal(params, bare) == (epoch < 2)
        schedule.step()
    assert counts == [1, 1, 1, 1, 2, 1, 2, 1]


def test_that_a_group_added_within_a_cycle_keeps_its_pace() -> None:
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    opt = rsam.RSAM([a], torch.optim.SGD, lr=0.1, every=3)
    counts = []
    for step in range(6):
        if step == 1:
            opt.add_param_group({"params": [b]})
        if step == 4:
            del opt.param_groups[0]
        closure, calls = _counted(closure_of(opt, lambda: (a * b).sum()), [a, b])
        opt.step(closure)
        counts.append(len(calls))
        if len(calls) == 2 and step > 1:
            assert not torch.equal(calls[0][1], calls[1][1])  # the new parameter is perturbed with the others
    assert counts == [2, 1, 1, 2, 1, 1]


def test_that_each_step_ascends_if_it_should_wherever_a_longer_cycle_ended() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    longer, resumed = (rsam.RSAM([w], torch.optim.SGD, lr=0.1, every=every) for every in (3, 1))
    longer.step(closure_of(longer, lambda: w.square().sum()))
    resumed.load_state_dict(longer.state_dict())
    counts = []
    for _ in range(3):
        closure, calls = _counted(closure_of(resumed, lambda: w.square().sum()), [w])
        resumed.step(closure)
        counts.append(len(calls))
    assert counts == [2, 2, 2]


@pytest.mark.parametrize("every", [0, -1, 1.5, "2", None])
def test_that_it_must_be_a_positive_integer(every) -> None:
    with pytest.raises(ValueError, match="every must be a positive integer, got"):
        rsam.RSAM([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=0.1, every=every)
