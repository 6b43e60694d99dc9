"""That RSAM is right in the loops that users write, or refuses them by name.

The reference is SAM by hand on plain parameters, ``w - lr g(w + rho g(w) / |g(w)|)``, or the base optimizer alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import rsam
from tests.optim.quartic import (
    LR,
    RHO,
    START,
    points_on_sphere,
    quartic_gradient,
    quartic_loss,
    quartic_optimizer,
    sam_step,
)


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
        points_on_sphere
        if manifold
        else lambda *ps: [torch.nn.Parameter(torch.tensor(p, dtype=torch.float64)) for p in ps]
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
    w, opt = quartic_optimizer(radius=radius)
    quartic_loss(w, 0).backward()
    opt.first_step(zero_grad=zero_grad)
    with pytest.raises(RuntimeError, match=r"evaluate the loss again.*restore\(\)"):
        getattr(opt, half)()
    assert torch.equal(w.detach(), START)
    assert not opt.state[w]


def test_that_halves_without_any_gradient_leave_the_weights_as_the_base_optimizer_does() -> None:
    """A framework's loop does this when it skips a batch."""
    w, opt = quartic_optimizer()
    opt.first_step()
    opt.second_step()
    assert torch.equal(w.detach(), START)


@pytest.mark.parametrize("options", [{}, {"direction": "momentum"}, {"radius": "point"}], ids=str)
@pytest.mark.parametrize("base", [torch.optim.SGD, rsam.optim.RiemannianSGD])
def test_that_to_maximise_is_to_minimise_the_negative(base: Any, options: dict[str, Any]) -> None:
    """The perturbation, too, must go where it makes the objective worse; on a sphere as on plain weights."""
    results = []
    for maximize in (False, True):
        params = points_on_sphere([0.6, 0.8]) if base is rsam.optim.RiemannianSGD else []
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
    frozen.grad = quartic_gradient(START, 1)
    frozen.requires_grad_(False)

    def closure() -> None:
        w.grad = None
        quartic_loss(w, 0).backward()

    if halves:
        closure()
        opt.first_step(zero_grad=True)
        closure()
        opt.second_step()
    else:
        opt.step(closure)
    torch.testing.assert_close(w.detach(), sam_step(START, 0), rtol=1e-14, atol=0)
    assert torch.equal(frozen, START)


def test_that_a_gradient_shared_by_points_or_expanded_is_not_written_to() -> None:
    points = ([0.6, 0.8], [1.0, 0.0])
    g = torch.tensor([1.0, 2.0], dtype=torch.float64)

    def run(gradients: list[Tensor]) -> list[Tensor]:
        params = points_on_sphere(*points)
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
    w, opt = quartic_optimizer()
    wrapped = Wrapped(opt)
    for _ in range(2):
        start = w.detach().clone()
        opt.zero_grad()
        quartic_loss(w, 0).backward()
        wrapped.first_step(zero_grad=True)
        quartic_loss(w, 0).backward()
        if closure == "evaluates":
            wrapped.step(lambda: (opt.zero_grad(), quartic_loss(w, 0).backward()))
        elif closure == "clips":  # as in a hook of Lightning before the step
            wrapped.step(lambda: torch.nn.utils.clip_grad_norm_([w], 1e9))
        else:
            wrapped.step()
        torch.testing.assert_close(w.detach(), sam_step(start, 0), rtol=1e-14, atol=0)


def test_that_after_first_step_a_closure_that_adds_to_the_second_gradient_is_refused() -> None:
    w, opt = quartic_optimizer()
    quartic_loss(w, 0).backward()
    opt.first_step(zero_grad=True)
    quartic_loss(w, 0).backward()
    with pytest.raises(RuntimeError, match="added to those of the first"):
        opt.step(lambda: quartic_loss(w, 0).backward())
    assert torch.equal(w.detach(), START)


@pytest.mark.parametrize("view", [False, True])
def test_that_losses_in_one_tensor_are_told_apart(view: bool) -> None:
    """As a CUDA graph computes them."""
    w, opt = quartic_optimizer()
    memory = torch.zeros((), dtype=torch.float64)

    def closure() -> Tensor:
        opt.zero_grad()
        loss = quartic_loss(w, 0)
        loss.backward()
        memory.copy_(loss.detach())
        return memory.view(()) if view else memory

    g = quartic_gradient(START, 0)
    first, second = quartic_loss(START, 0), quartic_loss(START + RHO * g / g.norm(), 0)
    torch.testing.assert_close(opt.step(closure), first)
    assert opt.sharpness == pytest.approx(float(second - first), rel=1e-12)


def test_that_a_closure_that_differentiates_the_graph_of_the_first_pass_again_is_refused() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    w, opt = quartic_optimizer()
    outside = (x @ w).square().sum()  # whose graph keeps no weights, so that autograd does not notice their change

    def closure() -> Tensor:
        opt.zero_grad()
        outside.backward(retain_graph=True)
        return outside

    with pytest.raises(
        RuntimeError, match=r"differentiates one graph in both passes.* Compute the loss in the closure"
    ):
        opt.step(closure)
    assert torch.equal(w.detach(), START)

    def anew() -> Tensor:
        opt.zero_grad()
        loss = quartic_loss(w, 0)
        loss.backward(retain_graph=True)
        return loss

    opt.step(anew)
    torch.testing.assert_close(w.detach(), sam_step(START, 0))


def test_that_a_loss_that_a_cuda_graph_writes_to_may_have_the_graph_of_its_capture() -> None:
    w, opt = quartic_optimizer()
    captured = quartic_loss(w, 0)
    captured.backward()  # which frees what the graph has saved

    def replay() -> Tensor:
        captured.data.copy_(quartic_loss(w.detach(), 0))
        w.grad = quartic_gradient(w.detach(), 0)
        return captured

    opt.step(replay)
    torch.testing.assert_close(w.detach(), sam_step(START, 0))


def test_that_a_loss_in_the_place_of_a_closure_is_refused() -> None:
    w, opt = quartic_optimizer()
    with pytest.raises(TypeError, match=r"takes a closure that computes the loss, got Tensor$"):
        opt.step(quartic_loss(w, 0))
    pair = rsam.optim.partial_closures(opt, quartic_loss, (w, 0))
    with pytest.raises(TypeError, match=r"got tuple; unpack the pair: step\(\*closures\)"):
        opt.step(pair)


@pytest.mark.parametrize(
    ("how", "options"),
    [("step(closure)", {}), ("first_step", {}), ("step(closure)", {"rho": 0.0}), ("step", {"rho": 0.0})],
    ids=str,
)
def test_that_a_closure_that_steps_its_optimizer_is_refused(how: str, options: dict[str, Any]) -> None:
    w, opt = quartic_optimizer(**options)

    def closure() -> None:
        opt.zero_grad()
        quartic_loss(w, 0).backward()

    def stepping() -> None:
        closure()
        opt.step(closure) if how == "step(closure)" else getattr(opt, how)()

    with pytest.raises(RuntimeError, match="the closure steps the optimizer"):
        opt.step(stepping)
    assert torch.equal(w.detach(), START)
    opt.step(closure)


def test_that_a_half_that_is_called_twice_says_what_may_be_why() -> None:
    w, opt = quartic_optimizer()
    quartic_loss(w, 0).backward()
    opt.first_step(zero_grad=True)
    quartic_loss(w, 1).backward()
    with pytest.raises(RuntimeError, match=r"gradient scaler.*restore\(\).*while gradients are accumulated"):
        opt.first_step()


@pytest.mark.parametrize("halves", [False, True])
def test_that_hooks_of_torch_run_once_a_step_and_see_the_weights_of_before_and_after(halves: bool) -> None:
    w, opt = quartic_optimizer()
    calls: list[str] = []
    opt.register_step_pre_hook(lambda *_: calls.append("before"))
    opt.register_step_post_hook(lambda *_: calls.append(f"after {not torch.equal(w.detach(), START)}"))

    def closure() -> None:
        opt.zero_grad()
        quartic_loss(w, 0).backward()

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


@pytest.mark.parametrize("half", ["second_step", "step"])
def test_that_a_hook_that_raises_before_the_second_half_leaves_the_weights(half: str) -> None:
    w, opt = quartic_optimizer()
    quartic_loss(w, 0).backward()
    opt.first_step(zero_grad=True)
    quartic_loss(w, 0).backward()
    opt.register_step_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        getattr(opt, half)()
    assert torch.equal(w.detach(), START)


def test_that_hooks_of_saving_and_loading_run_and_may_change_what_is_saved() -> None:
    _, opt = quartic_optimizer()
    calls: list[str] = []
    opt.register_state_dict_pre_hook(lambda o: calls.append("save"))
    opt.register_state_dict_post_hook(lambda o, saved: {**saved, "extra": 1})
    opt.register_load_state_dict_pre_hook(lambda o, saved: {k: v for k, v in saved.items() if k != "extra"})
    opt.register_load_state_dict_post_hook(lambda o: calls.append("loaded"))
    saved = opt.state_dict()
    assert saved["extra"] == 1
    opt.load_state_dict(saved)
    assert calls == ["save", "loaded"]
