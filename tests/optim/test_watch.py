"""That the watch on gradients refuses sums of two passes, nothing else, and leaves nothing behind.

The reference is SAM by hand on plain parameters, ``w - lr g(w + rho g(w) / |g(w)|)``.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rsam

RHO, LR = 0.3, 0.1


def _params() -> list[nn.Parameter]:
    """A large backbone behind a small head."""
    return [nn.Parameter(torch.linspace(0.5, 1.0, n, dtype=torch.float64)) for n in (4, 3, 2)]


def _loss(params: list[nn.Parameter]) -> Tensor:
    return sum((p**4).sum() for p in params)


def _optimizer(params: list[nn.Parameter], **options: Any) -> rsam.RSAM:
    return rsam.RSAM(params, torch.optim.SGD, **{"lr": LR, "rho": RHO, **options})


def _halves(opt: rsam.RSAM, loss: Callable[[], Tensor], set_to_none: bool = True) -> None:
    for half in (opt.first_step, opt.second_step):
        opt.zero_grad(set_to_none)
        loss().backward()
        half()


# -- what is left behind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_that_a_model_trained_in_halves_is_freed(steps: int) -> None:
    """After one and two steps all gradients are watched, after three that of one parameter."""

    def trained() -> list[weakref.ref[Tensor | None]]:
        params = _params()
        opt = _optimizer(params)
        for _ in range(steps):
            _halves(opt, lambda: _loss(params))
        return [weakref.ref(t) for p in params for t in (p, p.grad)]

    alive = trained()
    gc.collect()
    assert [r() for r in alive] == [None] * 6


def test_that_optimizers_that_are_gone_leave_no_hooks() -> None:
    params = _params()
    for _ in range(3):
        _halves(_optimizer(params), lambda: _loss(params))
    gc.collect()
    assert not any(p._backward_hooks or p._post_accumulate_grad_hooks for p in params)


# -- gradients that were cleared -------------------------------------------------------------------------------------


def _clear(way: str, params: list[nn.Parameter], opt: rsam.RSAM) -> None:
    if way == "by hand":
        for p in params:
            p.grad = None
    else:
        opt.zero_grad(set_to_none=way == "to None")


CLEARED = pytest.mark.parametrize("way", ["to None", "to zero", "by hand"])


def _sam(params: list[nn.Parameter]) -> list[Tensor]:
    """One step of SAM by hand on plain parameters."""
    gradients = [4 * p.detach() ** 3 for p in params]
    factor = RHO / torch.cat(gradients).norm()
    return [p.detach() - LR * 4 * (p.detach() + factor * g) ** 3 for p, g in zip(params, gradients, strict=True)]


def _assert_all_close(params: list[nn.Parameter], expected: list[Tensor]) -> None:
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), e, rtol=1e-14, atol=0)


@CLEARED
@pytest.mark.parametrize("where", ["before the first", "before the second", "in the closure"])
def test_that_a_pass_whose_gradients_are_discarded_is_not_taken_for_a_part_of_a_sum(where: str, way: str) -> None:
    """As one to log a norm; and in a GAN the loss of the generator adds to the gradients of the discriminator."""
    params = _params()
    opt = _optimizer(params)

    def backward(discarded: bool) -> None:
        if discarded:
            (3 * _loss(params)).backward()
        _clear(way, params, opt)
        _loss(params).backward()

    for _ in range(3):
        expected = _sam(params)
        if where == "in the closure":
            opt.step(lambda: backward(discarded=True))
        else:
            backward(where == "before the first")
            opt.first_step()
            backward(where == "before the second")
            opt.second_step()
        _assert_all_close(params, expected)


def test_that_what_is_cleared_by_hand_after_a_sum_stays_cleared() -> None:
    """The parameter takes no part in the pass that counts."""
    params = _params()
    opt = _optimizer(params)
    _loss(params).backward()

    def closure() -> None:
        _loss(params).backward()
        for p in params:
            p.grad = None
        _loss(params[:2]).backward()

    opt.step(closure)
    assert params[2].grad is None


@pytest.mark.parametrize("mixed", [False, True])
def test_that_closures_may_add_to_zeros_between_steps_in_halves(mixed: bool) -> None:
    params = _params()
    opt = _optimizer(params)
    for step in range(4):
        expected = _sam(params)
        if mixed and step % 2:
            opt.zero_grad(set_to_none=False)
            opt.step(lambda: _loss(params).backward())
        else:
            _halves(opt, lambda: _loss(params), set_to_none=False)
        _assert_all_close(params, expected)


def test_that_the_only_pass_in_halves_may_add_to_zeros() -> None:
    params, others = _params(), _params()
    opt, reference = (_optimizer(p, direction="momentum", momentum=0.9) for p in (params, others))
    for _ in range(3):
        opt.zero_grad(set_to_none=False)
        opt.first_step()
        _loss(params).backward()
        opt.second_step()
        reference.step(lambda: (reference.zero_grad(), _loss(others).backward()))
        assert all(map(torch.equal, params, others))


# -- a second pass that is missing -----------------------------------------------------------------------------------


def _without_second_pass(opt: rsam.RSAM, params: list[nn.Parameter]) -> None:
    opt.zero_grad()
    _loss(params).backward()
    opt.first_step()
    opt.zero_grad(set_to_none=False)


@pytest.mark.parametrize("half", ["second_step", "step", "step with a closure"])
@pytest.mark.parametrize("steps", [0, 2])
def test_that_zeros_are_not_taken_for_the_gradients_of_a_second_pass(steps: int, half: str) -> None:
    params = _params()
    opt = _optimizer(params)
    for _ in range(steps):
        _halves(opt, lambda: _loss(params))
    before = [p.detach().clone() for p in params]
    _without_second_pass(opt, params)
    with pytest.raises(RuntimeError, match=r"evaluate the loss again.*restore\(\)"):
        if half == "step with a closure":
            opt.step(lambda: None)
        else:
            getattr(opt, half)()
    assert all(map(torch.equal, params, before))
    expected = _sam(params)
    opt.step(lambda: _loss(params).backward())  # the gradients are zero still
    _assert_all_close(params, expected)


def test_that_a_second_gradient_that_autograd_does_not_see_is_taken() -> None:
    """A CUDA graph writes its gradients without a sign of it, as ``.data`` does."""
    params = _params()
    opt = _optimizer(params)
    expected = _sam(params)
    _without_second_pass(opt, params)
    for p in params:
        p.grad.data.copy_(4 * p.detach() ** 3)
    opt.second_step()
    _assert_all_close(params, expected)


# -- sums in a part of the gradients ---------------------------------------------------------------------------------


def test_that_a_backbone_unfrozen_late_whose_gradients_add_up_is_refused_at_once() -> None:
    """The closure zeroes the head alone, which is right as long as only the head is trained."""
    *backbone, head = params = _params()
    opt = _optimizer(params)

    def closure() -> None:
        head.grad = None
        _loss(params).backward()

    for p in backbone:
        p.requires_grad_(False)
    for _ in range(9):
        opt.step(closure)
    for p in backbone:
        p.requires_grad_(True)
    opt.step(closure)  # the first gradients of the backbone
    with pytest.raises(RuntimeError, match="in the closure"):
        opt.step(closure)


@pytest.mark.parametrize("zeroed", ["all", "head"])
@pytest.mark.parametrize("where", ["before the first", "before the second"])
def test_that_a_write_to_one_part_of_a_buffer_is_not_taken_for_writes_to_all(where: str, zeroed: str) -> None:
    """As in DistributedDataParallel's buckets, torch counts writes to the buffer."""
    params = _params()
    buffer = torch.zeros(9, dtype=torch.float64)
    for p, part in zip(params, buffer.split([p.numel() for p in params]), strict=True):
        p.grad = part
    opt = _optimizer(params)

    def backward(place: str) -> None:
        (buffer[7:] if zeroed == "head" and place == where else buffer).zero_()
        _loss(params).backward()

    def step() -> None:
        backward("before the first")
        opt.first_step()
        backward("before the second")
        opt.second_step()

    if zeroed == "all":
        for _ in range(3):
            step()
        return
    with pytest.raises(RuntimeError, match="added to those"):
        for _ in range(2):
            step()


@pytest.mark.parametrize("zero", ["buffer", "optimizer", "each"])
def test_that_gradients_in_a_buffer_stay_there_in_both_passes(zero: str) -> None:
    """What the closure does to the buffer, here clipping, must reach the gradients; the same in SAM by hand."""
    params, most = _params(), 1.0
    expected = [p.detach().clone() for p in params]
    buffer = torch.zeros(9, dtype=torch.float64)
    for p, part in zip(params, buffer.split([p.numel() for p in params]), strict=True):
        p.grad = part
    opt = _optimizer(params)

    def closure() -> None:
        if zero == "buffer":
            buffer.zero_()
        elif zero == "optimizer":
            opt.zero_grad(set_to_none=False)
        else:
            for p in params:
                p.grad.zero_()
        _loss(params).backward()
        buffer.clamp_(max=most)

    for _ in range(4):
        opt.step(closure)
        gradients = [(4 * p**3).clamp(max=most) for p in expected]
        factor = RHO / torch.cat(gradients).norm()
        perturbed = [p + factor * g for p, g in zip(expected, gradients, strict=True)]
        expected = [p - LR * (4 * q**3).clamp(max=most) for p, q in zip(expected, perturbed, strict=True)]
        _assert_all_close(params, expected)
    assert all(p.grad._is_view() for p in params)


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of one process."""
    distributed = torch.distributed
    if not distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("static", [False, True])
def test_that_a_closure_that_zeroes_a_part_is_refused_where_gradients_are_views_of_buckets(static, in_place) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model = nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True, static_graph=static)
    opt = _optimizer(list(model.parameters()))

    def closure() -> None:
        network[1].zero_grad(set_to_none=not in_place)
        model(torch.ones(5, 3)).square().mean().backward()

    with pytest.raises(RuntimeError, match="in the closure"):
        for _ in range(3):  # the buckets are made anew in the second, or of a static graph in the third pass
            opt.step(closure)
