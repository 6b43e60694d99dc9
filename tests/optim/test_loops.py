"""That RSAM is right in the loops that users write, or refuses them by name.

The reference is SAM by hand on plain parameters, ``w - lr g(w + rho g(w) / |g(w)|)``, or the base optimizer alone.
"""

from __future__ import annotations

import copy
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

import rsam

RHO, LR = 0.3, 0.1
START = torch.tensor([1.0, -2.0], dtype=torch.float64)
CURVATURES = torch.tensor([[1.0, 3.0], [2.0, 0.5]], dtype=torch.float64)


def _optimizer(**options: Any) -> tuple[torch.nn.Parameter, rsam.RSAM]:
    w = torch.nn.Parameter(START.clone())
    return w, rsam.RSAM([w], torch.optim.SGD, **{"lr": LR, "rho": RHO, **options})


def _loss(w: Tensor, batch: int) -> Tensor:
    return (CURVATURES[batch] * w**4).sum()


def _gradient(w: Tensor, *batches: int) -> Tensor:
    return sum((4 * CURVATURES[b] * w**3 for b in batches), torch.zeros_like(w))


def _sam(w: Tensor, *batches: int) -> Tensor:
    g = _gradient(w, *batches)
    return w - LR * _gradient(w + RHO * g / g.norm(), *batches)


def _on_sphere(*points: list[float]) -> list[geoopt.ManifoldParameter]:
    return [geoopt.ManifoldParameter(torch.tensor(p, dtype=torch.float64), manifold=geoopt.Sphere()) for p in points]


# -- gradients from before -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("set_to_none", [False, True])
@pytest.mark.parametrize("evaluates", [False, True])
@pytest.mark.parametrize("options", [{}, {"direction": "momentum"}], ids=str)
def test_that_a_closure_that_forgets_zero_grad_is_right_if_it_was_called_outside(
    evaluates, set_to_none, options
) -> None:
    w, opt = _optimizer(momentum=0.9, **options)
    again, zeroing = _optimizer(momentum=0.9, **options)

    def closure() -> Tensor:
        loss = _loss(w, 0)
        loss.backward()
        return loss

    for _ in range(3):
        if evaluates:
            _loss(w, 1).backward()
        opt.zero_grad(set_to_none)
        opt.step(closure)
        zeroing.step(lambda: (zeroing.zero_grad(), _loss(again, 0).backward()))
        assert torch.equal(w, again)


@pytest.mark.parametrize("which", ["all", "one", "new"])
def test_that_a_sum_after_gradients_were_set_to_zero_is_refused(which: str) -> None:
    """``one`` had a gradient that was set to zero, ``new`` had none."""
    one, new = params = [torch.nn.Parameter(START.clone()) for _ in range(2)]
    opt = rsam.RSAM(params, torch.optim.SGD, lr=LR, rho=RHO)
    one.grad = torch.ones_like(one)
    opt.zero_grad(set_to_none=False)
    for p in {"all": params, "one": [one], "new": [new]}[which]:
        _loss(p, 1).backward()
    with pytest.raises(RuntimeError, match="in the closure"):
        opt.step(lambda: sum(_loss(p, 0) for p in params).backward())
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
    w, opt = _optimizer(nonfinite=nonfinite, **options)
    _loss(w, 0).backward()
    before = w.grad.clone()

    def closure() -> Tensor:
        loss = _loss(w, 1)
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
    w, opt = _optimizer(nonfinite=nonfinite)
    w.grad = _gradient(START, 0)
    with pytest.raises(RuntimeError, match="in the closure"):
        opt.step(lambda: _loss(w, 1).backward(create_graph=True))
    assert torch.equal(w.grad, _gradient(START, 0))


def test_that_a_derivative_before_zero_grad_is_not_taken_for_a_sum() -> None:
    w, opt = _optimizer()
    w.grad = _gradient(START, 0)

    def closure() -> None:
        torch.autograd.grad(_loss(w, 1), w)
        opt.zero_grad()
        _loss(w, 0).backward()

    opt.step(closure)
    torch.testing.assert_close(w.detach(), _sam(START, 0), rtol=1e-14, atol=0)


def test_that_an_exception_after_a_sum_leaves_no_nan() -> None:
    w, opt = _optimizer()
    w.grad = _gradient(START, 0)

    def closure() -> None:
        _loss(w, 1).backward()
        raise KeyError

    with pytest.raises(KeyError):
        opt.step(closure)
    assert torch.equal(w.grad, _gradient(START, 0))


def test_that_a_closure_that_adds_by_hand_is_refused() -> None:
    """Autograd's hooks do not notice it; NaN instead of a gradient does."""
    w, opt = _optimizer()
    w.grad = _gradient(START, 0)

    def closure() -> None:
        w.grad += _gradient(w.detach(), 1)

    with pytest.raises(RuntimeError, match="in the closure"):
        opt.step(closure)
    assert torch.equal(w.detach(), START)


def test_that_a_direction_that_overlooks_a_gradient_does_not_hide_that_it_was_added_to() -> None:
    w, v = (torch.nn.Parameter(START.clone()) for _ in range(2))

    def along_first(weights: rsam.optim.Weights) -> list[Tensor]:
        return [weights.gradients[0], torch.zeros_like(weights.points[1])]

    opt = rsam.RSAM([w, v], torch.optim.SGD, lr=LR, direction=along_first)
    for p in (w, v):
        p.grad = _gradient(START, 0)

    def closure() -> None:
        for p in (w, v):
            p.grad += _gradient(p.detach(), 1)

    with pytest.raises(RuntimeError, match="in the closure"):
        opt.step(closure)


def test_that_a_closure_without_backward_is_refused() -> None:
    w, opt = _optimizer()
    _loss(w, 0).backward()
    with pytest.raises(RuntimeError, match="the closure leaves gradients"):
        opt.step(lambda: 1.0)
    assert torch.equal(w.grad, _gradient(START, 0))


@pytest.mark.parametrize("zero", [lambda w: w.grad.zero_(), lambda w: w.grad.mul_(0).nan_to_num_(0), None])
def test_that_a_closure_may_zero_gradients_or_write_over_them_in_place(zero) -> None:
    w, opt = _optimizer()
    w.grad = torch.ones_like(w)

    def closure() -> None:
        if w.grad is None:
            w.grad = torch.empty_like(w)
        if zero is None:
            w.grad.copy_(_gradient(w.detach(), 0))
        else:
            zero(w)
            _loss(w, 0).backward()

    opt.step(closure)
    torch.testing.assert_close(w.detach(), _sam(START, 0), rtol=1e-14, atol=0)


@pytest.mark.parametrize("zero", ["to_none", "in_place"])
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_that_nan_of_the_loss_is_not_taken_for_old_gradients(nonfinite: str, zero: str) -> None:
    w, opt = _optimizer(nonfinite=nonfinite)
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
    w, opt = _optimizer(**options)

    def fresh() -> None:
        opt.zero_grad()
        _loss(w, 0).backward()

    if "every" in options:
        opt.step(fresh)
    opt.zero_grad()
    start = w.detach().clone()
    _loss(w, 0).backward()
    opt.step(lambda: _loss(w, 1).backward())
    torch.testing.assert_close(w.detach(), start - LR * _gradient(start, 0, 1), rtol=1e-14, atol=0)


def test_that_micro_batches_accumulate_inside_a_closure() -> None:
    w, opt = _optimizer()

    def closure() -> None:
        opt.zero_grad()
        for batch in (0, 1):
            _loss(w, batch).backward()

    for _ in range(2):
        start = w.detach().clone()
        opt.step(closure)
        torch.testing.assert_close(w.detach(), _sam(start, 0, 1), rtol=1e-14, atol=0)


def test_that_halves_refuse_the_sum_of_both_passes() -> None:
    w, opt = _optimizer()
    _loss(w, 0).backward()
    opt.first_step()
    _loss(w, 0).backward()
    torch.nn.utils.clip_grad_norm_([w], 1.0)
    with pytest.raises(RuntimeError, match=r"first_step\(zero_grad=True\)"):
        opt.second_step()
    assert torch.equal(w.detach(), START)
    assert not w._post_accumulate_grad_hooks  # no hook is left


def test_that_nothing_is_watched_after_restore() -> None:
    w, opt = _optimizer()
    _loss(w, 0).backward()
    opt.first_step()
    opt.restore()
    opt.param_groups[0]["rho"] = 0.0
    _loss(w, 1).backward()
    opt.step()
    torch.testing.assert_close(w.detach(), START - LR * _gradient(START, 0, 1), rtol=1e-14, atol=0)


@pytest.mark.parametrize("way", ["zero_grad", "in_place", "copy", "argument"])
def test_that_halves_take_gradients_that_are_new(way: str) -> None:
    w, opt = _optimizer()
    _loss(w, 0).backward()
    opt.first_step(zero_grad=way == "argument")
    if way == "copy":
        w.grad.copy_(_gradient(w.detach(), 0))
    else:
        if way != "argument":
            opt.zero_grad(set_to_none=way == "zero_grad")
        _loss(w, 0).backward()
    opt.second_step()
    torch.testing.assert_close(w.detach(), _sam(START, 0), rtol=1e-14, atol=0)


def test_that_halves_refuse_gradients_that_are_added_to_those_of_the_last_step() -> None:
    w, opt = _optimizer()

    def halves(zero_grad: bool) -> None:
        _loss(w, 0).backward()
        opt.first_step(zero_grad=True)
        _loss(w, 0).backward()
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


def _second_gradient(way: str, params: list[torch.nn.Parameter], opt: rsam.RSAM) -> None:
    if way == "accumulated":
        opt.zero_grad()
        for p in params:
            (p**4).sum().backward()
    elif way == "data":
        for p in params:
            p.grad.data.copy_(4 * p.detach() ** 3)
    elif way == "one":  # as where the others take no part in this pass
        params[0].grad = 4 * params[0].detach() ** 3
    elif way == "other":  # which had no gradient in the first pass
        params[1].grad = torch.ones_like(params[1])


@pytest.mark.parametrize("way", ["accumulated", "data", "one", "other"])
@pytest.mark.parametrize("manifold", [False, True])
def test_that_a_second_pass_is_seen_however_it_writes_its_gradients(way: str, manifold: bool) -> None:
    make = (
        _on_sphere if manifold else lambda *ps: [torch.nn.Parameter(torch.tensor(p, dtype=torch.float64)) for p in ps]
    )
    params = make([0.6, 0.8], [1.0, 0.0])
    opt = rsam.RSAM(params, lr=LR, rho=RHO)
    for p in params[: 1 if way == "other" else 2]:
        p.grad = 4 * p.detach() ** 3
    opt.first_step()
    _second_gradient(way, params, opt)
    opt.second_step()


@pytest.mark.parametrize("half", ["second_step", "step"])
@pytest.mark.parametrize("zero_grad", [False, True])
@pytest.mark.parametrize("radius", ["product", "point"])
def test_that_a_step_in_halves_without_a_second_pass_is_refused(radius: Any, zero_grad: bool, half: str) -> None:
    """Unrefused, the step would be the base optimizer's, or none at all."""
    w, opt = _optimizer(radius=radius)
    _loss(w, 0).backward()
    opt.first_step(zero_grad=zero_grad)
    with pytest.raises(RuntimeError, match=r"evaluate the loss again.*restore\(\)"):
        getattr(opt, half)()
    assert torch.equal(w.detach(), START)
    assert not opt.state[w]


def test_that_halves_without_any_gradient_leave_the_weights_as_the_base_optimizer_does() -> None:
    """A framework's loop does this when it skips a batch."""
    w, opt = _optimizer()
    opt.first_step()
    opt.second_step()
    assert torch.equal(w.detach(), START)


@pytest.mark.parametrize("options", [{}, {"direction": "momentum"}, {"radius": "point"}], ids=str)
@pytest.mark.parametrize("base", [torch.optim.SGD, rsam.optim.RiemannianSGD])
def test_that_to_maximise_is_to_minimise_the_negative(base: Any, options: dict[str, Any]) -> None:
    """The perturbation, too, must go where it makes the objective worse; on a sphere as on plain weights."""
    results = []
    for maximize in (False, True):
        params = _on_sphere([0.6, 0.8]) if base is rsam.optim.RiemannianSGD else []
        params.append(torch.nn.Parameter(START.clone()))
        opt = rsam.RSAM(params, base, lr=0.01, momentum=0.9, rho=RHO, maximize=maximize, **options)

        def closure(opt: Any = opt, params: Any = params, sign: int = -1 if maximize else 1) -> Tensor:
            opt.zero_grad()
            loss = sign * sum((p**4).sum() + p[0] for p in params)
            loss.backward()
            return loss

        for _ in range(3):
            opt.step(closure)
        results.append([p.detach() for p in params])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=0)


@pytest.mark.parametrize("halves", [False, True])
def test_that_a_parameter_frozen_with_a_gradient_does_not_ascend(halves: bool) -> None:
    w, frozen = (torch.nn.Parameter(START.clone()) for _ in range(2))
    opt = rsam.RSAM([w, frozen], torch.optim.SGD, lr=LR, rho=RHO)
    frozen.grad = _gradient(START, 1)
    frozen.requires_grad_(False)

    def closure() -> None:
        w.grad = None
        _loss(w, 0).backward()

    if halves:
        closure()
        opt.first_step(zero_grad=True)
        closure()
        opt.second_step()
    else:
        opt.step(closure)
    torch.testing.assert_close(w.detach(), _sam(START, 0), rtol=1e-14, atol=0)
    assert torch.equal(frozen, START)


def test_that_a_gradient_shared_by_points_or_expanded_is_not_written_to() -> None:
    points = ([0.6, 0.8], [1.0, 0.0])
    g = torch.tensor([1.0, 2.0], dtype=torch.float64)

    def run(gradients: list[Tensor]) -> list[Tensor]:
        params = _on_sphere(*points)
        opt = rsam.RSAM(params, lr=0.5, rho=0.5)
        for p in params:
            p.grad = torch.ones_like(p)
        opt.first_step()
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient
        opt.second_step()
        return [p.detach() for p in params]

    own = run([g.clone(), g.clone()])
    shared = g.clone()
    for a, b in zip(own, run([shared, shared]), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(shared, g)
    flat = torch.tensor(1.5, dtype=torch.float64).expand(2)
    for a, b in zip(run([flat.clone(), flat.clone()]), run([flat, flat]), strict=True):
        assert torch.equal(a, b)


# -- autocast --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("options", [{}, {"direction": "momentum", "momentum": 0.9}], ids=["gradient", "momentum"])
def test_that_an_autocast_around_the_step_sees_the_perturbed_weights(halves, options) -> None:
    """Autocast's cache keeps casts of weights that have changed; without the cache the losses are right anyway."""
    x = torch.linspace(-1, 1, 24).reshape(8, 3)
    y = torch.arange(8) % 3

    def losses(cache_enabled: bool) -> list[float]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 3)
        opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.1, rho=0.5, **options)
        seen = []

        def closure() -> Tensor:
            opt.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x).float(), y)
            loss.backward()
            seen.append(loss.item())
            return loss

        with torch.autocast("cpu", torch.bfloat16, cache_enabled=cache_enabled):
            for _ in range(2):
                if not halves:
                    opt.step(closure)
                    continue
                if not options:
                    closure()
                opt.first_step()
                closure()
                opt.second_step()
            closure()
        return seen

    assert losses(cache_enabled=True) == losses(cache_enabled=False)


# -- wrappers and hooks ----------------------------------------------------------------------------------------------


class Wrapped:
    """Optimizer in a wrapper like Lightning's: it forwards reads, keeps writes, and passes a closure to step."""

    def __init__(self, optimizer: rsam.RSAM) -> None:
        self._optimizer = optimizer
        self.__class__ = type("Wrapped", (Wrapped, type(optimizer)), {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def step(self, closure: Callable[[], Any] = lambda: None) -> Any:
        return self._optimizer.step(closure)


@pytest.mark.parametrize("closure", ["nothing", "clips", "evaluates"])
def test_that_first_step_and_then_the_step_of_a_wrapper_are_the_halves(closure: str) -> None:
    w, opt = _optimizer()
    wrapped = Wrapped(opt)
    for _ in range(2):
        start = w.detach().clone()
        opt.zero_grad()
        _loss(w, 0).backward()
        wrapped.first_step(zero_grad=True)
        _loss(w, 0).backward()
        if closure == "evaluates":
            wrapped.step(lambda: (opt.zero_grad(), _loss(w, 0).backward()))
        elif closure == "clips":  # as in a hook of Lightning before the step
            wrapped.step(lambda: torch.nn.utils.clip_grad_norm_([w], 1e9))
        else:
            wrapped.step()
        torch.testing.assert_close(w.detach(), _sam(start, 0), rtol=1e-14, atol=0)


def test_that_after_first_step_a_closure_that_adds_to_the_second_gradient_is_refused() -> None:
    w, opt = _optimizer()
    _loss(w, 0).backward()
    opt.first_step(zero_grad=True)
    _loss(w, 0).backward()
    with pytest.raises(RuntimeError, match="added to those of the first"):
        opt.step(lambda: _loss(w, 0).backward())
    assert torch.equal(w.detach(), START)


def test_that_a_loss_in_the_place_of_a_closure_is_refused() -> None:
    w, opt = _optimizer()
    with pytest.raises(TypeError, match="takes a closure that computes the loss, got Tensor"):
        opt.step(_loss(w, 0))


def test_that_a_half_that_is_called_twice_says_what_may_be_why() -> None:
    w, opt = _optimizer()
    _loss(w, 0).backward()
    opt.first_step(zero_grad=True)
    _loss(w, 1).backward()
    with pytest.raises(RuntimeError, match=r"gradient scaler.*restore\(\).*while gradients are accumulated"):
        opt.first_step()


@pytest.mark.parametrize("halves", [False, True])
def test_that_hooks_of_torch_run_once_a_step_and_see_the_weights_of_before_and_after(halves: bool) -> None:
    w, opt = _optimizer()
    calls: list[str] = []
    opt.register_step_pre_hook(lambda *_: calls.append("before"))
    opt.register_step_post_hook(lambda *_: calls.append(f"after {not torch.equal(w.detach(), START)}"))

    def closure() -> None:
        opt.zero_grad()
        _loss(w, 0).backward()

    with torch.profiler.profile() as profile:
        if halves:
            closure()
            opt.first_step()
            closure()
            opt.second_step()
        else:
            opt.step(closure)
    assert calls == ["before", "after True"]
    assert "Optimizer.step#RSAM.step" in {event.key for event in profile.key_averages()}


def test_that_hooks_of_saving_and_loading_run_and_may_change_what_is_saved() -> None:
    _, opt = _optimizer()
    calls: list[str] = []
    opt.register_state_dict_pre_hook(lambda o: calls.append("save"))
    opt.register_state_dict_post_hook(lambda o, saved: {**saved, "extra": 1})
    opt.register_load_state_dict_pre_hook(lambda o, saved: {k: v for k, v in saved.items() if k != "extra"})
    opt.register_load_state_dict_post_hook(lambda o: calls.append("loaded"))
    saved = opt.state_dict()
    assert saved["extra"] == 1
    opt.load_state_dict(saved)
    assert calls == ["save", "loaded"]


# -- what belongs to the base ----------------------------------------------------------------------------------------


def test_that_assigned_states_and_groups_reach_the_base() -> None:
    def run(make: Callable[[torch.nn.Parameter], torch.optim.Optimizer]) -> Iterator[float]:
        p = torch.nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
        opt = make(p)

        def closure() -> Tensor:
            opt.zero_grad()
            loss = p.square().sum()
            loss.backward()
            return loss

        for _ in range(3):
            opt.step(closure)
        opt.state = defaultdict(dict)  # the usual way to clear the momentum
        opt.step(closure)
        yield p.item()
        opt.param_groups = [{**opt.param_groups[0], "lr": 0.0}]
        opt.step(closure)
        yield p.item()

    plain = list(run(lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9)))
    assert plain[0] == plain[1]
    assert list(run(lambda p: rsam.RSAM([p], torch.optim.SGD, rho=0.0, lr=0.1, momentum=0.9))) == plain


def test_that_assigned_groups_are_checked_and_get_the_options_that_they_lack() -> None:
    w, opt = _optimizer(rho=0.7)
    groups = torch.optim.SGD([w], lr=0.5).param_groups
    opt.param_groups = groups
    assert opt.base_optimizer.param_groups is groups
    assert groups[0]["rho"] == 0.7
    with pytest.raises(ValueError, match="must not be negative"):
        opt.param_groups = [{**groups[0], "rho": -1.0}]
    assert opt.param_groups is groups


class Counting(torch.optim.SGD):
    """Base optimizer that stores more than ``state`` and ``param_groups``, as pytorch_optimizer's StableSPAM."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        for group in self.param_groups:
            group["lr"] = 0.01 / self.steps
        return super().step(closure)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"]
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "steps"})

    def eval(self) -> str:
        return "averaged"


def test_that_a_base_with_a_state_dict_of_its_own_resumes_exactly() -> None:
    def steps(w: Tensor, opt: rsam.RSAM) -> None:
        for _ in range(3):
            opt.step(lambda: (opt.zero_grad(), _loss(w, 0).backward()))

    w = torch.nn.Parameter(START.clone())
    opt = rsam.RSAM([w], Counting, lr=LR, rho=RHO)
    steps(w, opt)
    again = torch.nn.Parameter(w.detach().clone())
    resumed = rsam.RSAM([again], Counting, lr=LR, rho=RHO)
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    steps(w, opt)
    steps(again, resumed)
    assert torch.equal(w, again)


def test_that_methods_of_the_base_are_found_and_unknown_names_are_not() -> None:
    opt = rsam.RSAM([torch.nn.Parameter(START.clone())], Counting, lr=LR)
    assert opt.eval() == "averaged"
    with pytest.raises(AttributeError, match="train"):
        _ = opt.train
    assert copy.deepcopy(opt).eval() == "averaged"
    assert repr(opt).startswith("RSAM over Counting (")


def test_that_changed_defaults_reach_new_groups() -> None:
    _, opt = _optimizer()
    opt.defaults["rho"], opt.defaults["lr"] = 0.9, 0.01
    opt.add_param_group({"params": [torch.nn.Parameter(START.clone())]})
    assert (opt.param_groups[1]["rho"], opt.param_groups[1]["lr"]) == (0.9, 0.01)


def test_that_a_checkpoint_of_an_optimizer_without_state_is_made_as_torch_makes_it() -> None:
    """torch.distributed.checkpoint calls step() without a closure, with zero gradients and learning rates."""

    def saved(make: Callable[[torch.nn.Module], torch.optim.Optimizer]) -> dict[str, Any]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        before = copy.deepcopy(model.state_dict())
        state = get_optimizer_state_dict(model, make(model))
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        return state["state"]

    expected = saved(lambda model: torch.optim.AdamW(model.parameters()))
    actual = saved(lambda model: rsam.RSAM(model.parameters(), torch.optim.AdamW))
    assert expected.keys() == actual.keys()
    for name, entries in expected.items():
        assert entries.keys() == actual[name].keys()
        assert all(torch.equal(value, actual[name][key]) for key, value in entries.items())


class AdaHessian(torch.optim.SGD):
    """Optimizer with the interface of those in torch-optimizer and pytorch_optimizer."""


@pytest.mark.parametrize(
    ("base", "error", "message"),
    [
        (lambda w: torch.optim.SGD([w], lr=0.1), TypeError, r"RSAM\.from_optimizer\(optimizer, rho=\.\.\.\)"),
        (lambda w: "sgd", TypeError, "base_optimizer must be a class"),
        (lambda w: lambda params, lr: params, TypeError, r"must make a torch\.optim\.Optimizer, got list"),
        (lambda w: AdaHessian, ValueError, "AdaHessian differentiates the gradient"),
    ],
)
def test_that_bases_that_cannot_be_are_refused_by_name(base, error, message) -> None:
    w = torch.nn.Parameter(START.clone())
    with pytest.raises(error, match=message):
        rsam.RSAM([w], base(w), lr=0.1)


def test_that_an_optimizer_that_cannot_be_wrapped_is_left_as_it_was() -> None:
    sgd = torch.optim.SGD([torch.nn.Parameter(START.clone())], lr=0.1)
    before = [dict(group) for group in sgd.param_groups]
    for options in ({"rho": -1.0}, {"every": 0}, {"transport": "by hand"}):
        with pytest.raises(ValueError, match="must"):
            rsam.RSAM.from_optimizer(sgd, **options)
        assert sgd.param_groups == before


@pytest.mark.parametrize("rho", ["a", None, torch.tensor([0.5]), [0.1]])
def test_that_a_radius_that_is_no_number_is_refused_at_once_and_when_it_is_set(rho: Any) -> None:
    with pytest.raises(ValueError, match=r"rho must be a number, got .* in parameter group 0"):
        _optimizer(rho=rho)
    w, opt = _optimizer()
    opt.step(lambda: (opt.zero_grad(), _loss(w, 0).backward()))
    opt.param_groups[0]["rho"], before = rho, w.detach().clone()
    with pytest.raises(ValueError, match="rho must be a number"):
        opt.first_step()
    assert torch.equal(w.detach(), before)
