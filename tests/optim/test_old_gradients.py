"""That gradients from before a pass are never added to in silence.

The reference is SAM by hand on plain parameters, ``w - lr g(w + rho g(w) / |g(w)|)``, or the base optimizer alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor

import rsam
from tests.optim.quartic import (
    LR,
    RHO,
    START,
    quartic_gradient,
    quartic_loss,
    quartic_optimizer,
    sam_step,
)


def test_that_a_closure_that_reads_gradients_of_the_step_before_is_told_that_one_is_nan() -> None:
    w, opt = quartic_optimizer()

    def closure() -> None:
        before = None if w.grad is None else w.grad.clone()
        w.grad = None
        quartic_loss(w, 0).backward()
        if before is not None:
            w.grad += 0.5 * before

    opt.step(closure)
    with pytest.raises(rsam.NotFinite, match=r"reads gradients of the step before.*copy them before the step"):
        opt.step(closure)


@pytest.mark.parametrize("set_to_none", [False, True])
@pytest.mark.parametrize("evaluates", [False, True])
@pytest.mark.parametrize("options", [{}, {"direction": "momentum"}], ids=str)
def test_that_a_closure_that_forgets_zero_grad_is_right_if_it_was_called_outside(
    evaluates, set_to_none, options
) -> None:
    w, opt = quartic_optimizer(momentum=0.9, **options)
    again, zeroing = quartic_optimizer(momentum=0.9, **options)

    def closure() -> Tensor:
        loss = quartic_loss(w, 0)
        loss.backward()
        return loss

    for _ in range(3):
        if evaluates:
            quartic_loss(w, 1).backward()
        opt.zero_grad(set_to_none)
        opt.step(closure)
        zeroing.step(lambda: (zeroing.zero_grad(), quartic_loss(again, 0).backward()))
        assert torch.equal(w, again)


@pytest.mark.parametrize("which", ["all", "one", "new"])
def test_that_a_sum_after_gradients_were_set_to_zero_is_refused(which: str) -> None:
    """``one`` had a gradient that was set to zero, ``new`` had none."""
    one, new = params = [torch.nn.Parameter(START.clone()) for _ in range(2)]
    opt = rsam.RSAM(params, torch.optim.SGD, lr=LR, rho=RHO)
    one.grad = torch.ones_like(one)
    opt.zero_grad(set_to_none=False)
    for p in {"all": params, "one": [one], "new": [new]}[which]:
        quartic_loss(p, 1).backward()
    with pytest.raises(RuntimeError, match="in the closure"):
        opt.step(lambda: sum(quartic_loss(p, 0) for p in params).backward())
    assert all(torch.equal(p, START) for p in params)


def _plain(w: Tensor) -> None: ...


def _clip(w: Tensor) -> None:
    torch.nn.utils.clip_grad_norm_([w], 1e9)


def _clip_values(w: Tensor) -> None:
    torch.nn.utils.clip_grad_value_([w], 1e9)


def _rescale(w: Tensor) -> None:
    w.grad.mul_(1.0).mul_(1.0)


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
@pytest.mark.parametrize("afterwards", [_plain, _clip, _clip_values, _rescale])
@pytest.mark.parametrize("options", [{}, {"direction": "momentum", "momentum": 0.9}], ids=["gradient", "momentum"])
def test_that_a_closure_that_adds_to_gradients_of_before_is_refused(options, afterwards, nonfinite) -> None:
    """Lightning's accumulate_grad_batches, accelerate's accumulate and a user's pass before step(closure) do that."""
    w, opt = quartic_optimizer(nonfinite=nonfinite, **options)
    quartic_loss(w, 0).backward()
    before = w.grad.clone()

    def closure() -> Tensor:
        loss = quartic_loss(w, 1)
        loss.backward()
        afterwards(w)
        return loss

    with pytest.raises(RuntimeError, match=r"zero_grad\(\) in the closure.*all of them in the closure"):
        opt.step(closure)
    assert torch.equal(w.detach(), START)
    assert not opt.state[w]
    assert torch.equal(w.grad, before)


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_that_a_closure_that_adds_with_a_graph_is_refused(nonfinite: str) -> None:
    """The sum is a new tensor then, with NaN in it; as a gradient that is not finite it would skip every step."""
    w, opt = quartic_optimizer(nonfinite=nonfinite)
    w.grad = quartic_gradient(START, 0)
    with pytest.raises(RuntimeError, match="in the closure"):
        opt.step(lambda: quartic_loss(w, 1).backward(create_graph=True))
    assert torch.equal(w.grad, quartic_gradient(START, 0))


def test_that_a_derivative_before_zero_grad_is_not_taken_for_a_sum() -> None:
    w, opt = quartic_optimizer()
    w.grad = quartic_gradient(START, 0)

    def closure() -> None:
        torch.autograd.grad(quartic_loss(w, 1), w)
        opt.zero_grad()
        quartic_loss(w, 0).backward()

    opt.step(closure)
    torch.testing.assert_close(w.detach(), sam_step(START, 0), rtol=1e-14, atol=0)


def test_that_an_exception_after_a_sum_leaves_no_nan() -> None:
    w, opt = quartic_optimizer()
    w.grad = quartic_gradient(START, 0)

    def closure() -> None:
        quartic_loss(w, 1).backward()
        raise KeyError

    with pytest.raises(KeyError):
        opt.step(closure)
    assert torch.equal(w.grad, quartic_gradient(START, 0))


def test_that_a_closure_that_adds_by_hand_is_refused() -> None:
    """Autograd's hooks do not notice it; NaN instead of a gradient does."""
    w, opt = quartic_optimizer()
    w.grad = quartic_gradient(START, 0)

    def closure() -> None:
        w.grad += quartic_gradient(w.detach(), 1)

    with pytest.raises(RuntimeError, match="in the closure"):
        opt.step(closure)
    assert torch.equal(w.detach(), START)


@pytest.mark.parametrize("shape", [(3,), ()], ids=str)
def test_that_a_closure_that_adds_by_hand_is_refused_after_a_step_of_points_that_are_stacked(shape) -> None:
    """Gradients that are brought back to a stack are parts of it, but of no buffer of the user's."""
    manifold = geoopt.Sphere() if shape else geoopt.Scaled(geoopt.Euclidean(), 2.0)
    points = [geoopt.ManifoldParameter(torch.ones(shape) / 3**0.5, manifold=manifold) for _ in range(3)]
    opt = rsam.RSAM(points, lr=0.1, rho=0.1)
    start = torch.arange(1.0, 4.0) if shape else torch.tensor(1.0)

    def closure() -> None:
        for p in points:
            if p.grad is None:
                p.grad = start.clone()
            else:
                p.grad += start

    opt.step(closure)
    before = [p.detach().clone() for p in points]
    with pytest.raises(RuntimeError, match="in the closure"):
        opt.step(closure)
    assert all(map(torch.equal, points, before))


def test_that_a_direction_that_overlooks_a_gradient_does_not_hide_that_it_was_added_to() -> None:
    w, v = (torch.nn.Parameter(START.clone()) for _ in range(2))

    def along_first(weights: rsam.optim.Weights) -> list[Tensor]:
        return [weights.gradients[0], torch.zeros_like(weights.points[1])]

    opt = rsam.RSAM([w, v], torch.optim.SGD, lr=LR, direction=along_first)
    for p in (w, v):
        p.grad = quartic_gradient(START, 0)

    def closure() -> None:
        for p in (w, v):
            p.grad += quartic_gradient(p.detach(), 1)

    with pytest.raises(RuntimeError, match="in the closure"):
        opt.step(closure)


def test_that_a_closure_without_backward_is_refused() -> None:
    w, opt = quartic_optimizer()
    quartic_loss(w, 0).backward()
    with pytest.raises(RuntimeError, match="the closure leaves gradients"):
        opt.step(lambda: 1.0)
    assert torch.equal(w.grad, quartic_gradient(START, 0))


@pytest.mark.parametrize("zero", [lambda w: w.grad.zero_(), lambda w: w.grad.mul_(0).nan_to_num_(0), None])
def test_that_a_closure_may_zero_gradients_or_write_over_them_in_place(zero) -> None:
    w, opt = quartic_optimizer()
    w.grad = torch.ones_like(w)

    def closure() -> None:
        if w.grad is None:
            w.grad = torch.empty_like(w)
        if zero is None:
            w.grad.copy_(quartic_gradient(w.detach(), 0))
        else:
            zero(w)
            quartic_loss(w, 0).backward()

    opt.step(closure)
    torch.testing.assert_close(w.detach(), sam_step(START, 0), rtol=1e-14, atol=0)


@pytest.mark.parametrize("zero", ["to_none", "in_place"])
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_that_nan_of_the_loss_is_not_taken_for_old_gradients(nonfinite: str, zero: str) -> None:
    w, opt = quartic_optimizer(nonfinite=nonfinite)
    w.grad = torch.ones_like(w)

    def closure() -> Tensor:
        opt.zero_grad(set_to_none=zero == "to_none")
        loss = w.sum() * torch.nan
        loss.backward()
        return loss

    if nonfinite == "raise":
        with pytest.raises(rsam.NotFinite):
            opt.step(closure)
    else:
        opt.step(closure)
    assert torch.equal(w.detach(), START)


@pytest.mark.parametrize("options", [{"rho": 0.0}, {"every": 2}])
def test_that_gradients_accumulate_where_a_step_does_not_ascend(options: dict[str, Any]) -> None:
    w, opt = quartic_optimizer(**options)

    def fresh() -> None:
        opt.zero_grad()
        quartic_loss(w, 0).backward()

    if "every" in options:
        opt.step(fresh)
    opt.zero_grad()
    start = w.detach().clone()
    quartic_loss(w, 0).backward()
    opt.step(lambda: quartic_loss(w, 1).backward())
    torch.testing.assert_close(w.detach(), start - LR * quartic_gradient(start, 0, 1), rtol=1e-14, atol=0)


def test_that_micro_batches_accumulate_inside_a_closure() -> None:
    w, opt = quartic_optimizer()

    def closure() -> None:
        opt.zero_grad()
        for batch in (0, 1):
            quartic_loss(w, batch).backward()

    for _ in range(2):
        start = w.detach().clone()
        opt.step(closure)
        torch.testing.assert_close(w.detach(), sam_step(start, 0, 1), rtol=1e-14, atol=0)


def test_that_halves_refuse_the_sum_of_both_passes() -> None:
    w, opt = quartic_optimizer()
    quartic_loss(w, 0).backward()
    opt.first_step()
    quartic_loss(w, 0).backward()
    torch.nn.utils.clip_grad_norm_([w], 1.0)
    with pytest.raises(RuntimeError, match=r"first_step\(zero_grad=True\)"):
        opt.second_step()
    assert torch.equal(w.detach(), START)
    assert not w._post_accumulate_grad_hooks  # no hook is left


def test_that_nothing_is_watched_after_restore() -> None:
    w, opt = quartic_optimizer()
    quartic_loss(w, 0).backward()
    opt.first_step()
    opt.restore()
    opt.param_groups[0]["rho"] = 0.0
    quartic_loss(w, 1).backward()
    opt.step()
    torch.testing.assert_close(w.detach(), START - LR * quartic_gradient(START, 0, 1), rtol=1e-14, atol=0)


@pytest.mark.parametrize("way", ["zero_grad", "in_place", "copy", "argument"])
def test_that_halves_take_gradients_that_are_new(way: str) -> None:
    w, opt = quartic_optimizer()
    quartic_loss(w, 0).backward()
    opt.first_step(zero_grad=way == "argument")
    if way == "copy":
        w.grad.copy_(quartic_gradient(w.detach(), 0))
    else:
        if way != "argument":
            opt.zero_grad(set_to_none=way == "zero_grad")
        quartic_loss(w, 0).backward()
    opt.second_step()
    torch.testing.assert_close(w.detach(), sam_step(START, 0), rtol=1e-14, atol=0)


def test_that_halves_refuse_gradients_that_are_added_to_those_of_the_last_step() -> None:
    w, opt = quartic_optimizer()

    def halves(zero_grad: bool) -> None:
        quartic_loss(w, 0).backward()
        opt.first_step(zero_grad=True)
        quartic_loss(w, 0).backward()
        opt.second_step(zero_grad=zero_grad)

    halves(zero_grad=True)
    halves(zero_grad=False)
    before = w.detach().clone()
    with pytest.raises(RuntimeError, match=r"zero_grad\(\) before the first backward"):
        halves(zero_grad=False)
    assert torch.equal(w.detach(), before)
    opt.zero_grad(set_to_none=False)
    halves(zero_grad=True)


def _partly_zeroed(where: str) -> tuple[list[torch.nn.Parameter], rsam.RSAM, Callable[[], Any]]:
    """A large backbone, a small head, and a step that zeroes the head alone at one place."""
    params = [torch.nn.Parameter(torch.ones(n, dtype=torch.float64)) for n in (2, 3, 4)]
    opt = rsam.RSAM(params, torch.optim.SGD, lr=LR, rho=RHO)

    def backward() -> None:
        sum((p**4).sum() for p in params).backward()

    def zero(part: bool) -> None:
        for p in params[:1] if part else params:
            p.grad = None

    def step() -> None:
        if where == "closure":
            opt.step(lambda: (zero(True), backward()))
            return
        zero(where == "after step")
        backward()
        opt.first_step()
        zero(where == "halves")
        backward()
        opt.second_step()

    return params, opt, step


@pytest.mark.parametrize("where", ["closure", "halves", "after step"])
def test_that_zeroing_some_gradients_does_not_hide_a_sum_in_the_others(where: str) -> None:
    params, _, step = _partly_zeroed(where)
    if where != "halves":
        step()  # there is nothing to add to yet
    before = [p.detach().clone() for p in params]
    with pytest.raises(RuntimeError, match="weights are as"):
        step()
    assert all(map(torch.equal, params, before))
    assert not any(p._post_accumulate_grad_hooks or p._backward_hooks for p in params)  # nothing is watched any more


def test_that_all_gradients_are_looked_at_again_when_there_are_more_parameters() -> None:
    params, opt, step = _partly_zeroed("closure")
    for _ in range(7):  # all are looked at in the second, third and fifth, as the first finds no gradient
        opt.step(lambda: (opt.zero_grad(), sum((p**4).sum() for p in params).backward()))
    opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(5, dtype=torch.float64))]})
    with pytest.raises(RuntimeError, match="in the closure"):
        step()


def test_that_no_gradient_is_kept_by_looking_at_all() -> None:
    """Keeping them would double the memory of the gradients, even if only in the first steps."""
    params, opt, _ = _partly_zeroed("closure")
    kept: list[Any] = []

    def closure() -> None:
        old = [weakref.ref(p.grad) for p in params[1:] if p.grad is not None]
        opt.zero_grad()
        kept.extend(r() for r in old)
        sum((p**4).sum() for p in params).backward()

    for _ in range(2):
        opt.step(closure)
    assert kept
    assert all(r is None for r in kept)
