"""That a closure that never calls ``backward`` is refused, and one that leaves it out on purpose is not.

And that the error says what it was that a closure has forgotten, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import rsam

FORGOTTEN = r"the closure has to call backward: .*zero_grad\(\) and then loss\.backward\(\) in the closure; see the"
WAYS = pytest.mark.parametrize(
    "options", [{}, {"direction": "momentum", "momentum": 0.9}, {"rho": 0.0}, {"nonfinite": "skip"}], ids=str
)


def _make(**options: Any) -> tuple[nn.Module, rsam.RSAM]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    rsam.nn.constrain(model, geoopt.Sphere(), "0.weight")
    return model, rsam.RSAM(model.parameters(), **{"lr": 0.1, "rho": 0.05, **options})


def _loss(model: Callable[[Tensor], Tensor]) -> Tensor:
    return model(torch.ones(5, 3)).square().mean()


def _weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def _backward_then_zero_grad(model: nn.Module, opt: rsam.RSAM) -> Tensor:
    loss = _loss(model)
    loss.backward()
    opt.zero_grad()
    return loss


def _zeros(model: nn.Module, opt: rsam.RSAM) -> Tensor:
    opt.zero_grad(set_to_none=False)
    return _loss(model)


@WAYS
@pytest.mark.parametrize(
    "closure",
    [
        lambda model, opt: _loss(model),
        lambda model, opt: (opt.zero_grad(), _loss(model))[1],
        lambda model, opt: _loss(lambda x: checkpoint(model, x, use_reentrant=False)),
        _backward_then_zero_grad,
    ],
    ids=["alone", "zero_grad", "checkpointed", "order"],
)
def test_that_a_closure_without_backward_is_refused(closure: Any, options: dict[str, Any]) -> None:
    model, opt = _make(**options)
    before = _weights(model)
    for _ in range(2):  # and again, if the error is caught
        with pytest.raises(RuntimeError, match=FORGOTTEN):
            opt.step(lambda: closure(model, opt))
        assert all(map(torch.equal, model.parameters(), before))
    opt.step(lambda: (opt.zero_grad(), _loss(model).backward()))
    assert not any(map(torch.equal, model.parameters(), before))


def test_that_zeros_from_before_are_not_taken_for_its_gradient() -> None:
    model, opt = _make()
    _loss(model).backward()
    with pytest.raises(RuntimeError, match=FORGOTTEN):
        opt.step(lambda: _zeros(model, opt))


def test_that_a_closure_of_a_part_of_the_batch_without_backward_is_refused() -> None:
    model, opt = _make()
    with pytest.raises(RuntimeError, match=FORGOTTEN):
        opt.step(lambda: 1 / 0, lambda: _loss(model))


def _skips_nan(model: nn.Module, opt: rsam.RSAM) -> Tensor:
    return _loss(model) * torch.nan


def _of_other_weights(model: nn.Module, opt: rsam.RSAM) -> Tensor:
    loss = nn.Parameter(torch.ones(())).square()
    loss.backward()
    return loss


@WAYS
@pytest.mark.parametrize(
    "closure",
    [
        lambda model, opt: None,
        lambda model, opt: 1.0,
        lambda model, opt: _loss(model).detach(),  # as Lightning returns it, also where it leaves out backward
        _skips_nan,
        _of_other_weights,
    ],
    ids=["nothing", "number", "detached", "nan", "unused"],
)
def test_that_a_closure_of_which_it_is_not_sure_is_let_be(closure: Any, options: dict[str, Any]) -> None:
    model, opt = _make(**options)
    before = _weights(model)
    opt.step(lambda: closure(model, opt))
    assert all(map(torch.equal, model.parameters(), before))


def test_that_frozen_parameters_need_no_backward() -> None:
    """The loss depends on weights of another optimizer."""
    model, opt = _make()
    model.requires_grad_(False)
    x = torch.ones(5, 3, requires_grad=True)
    loss = opt.step(lambda: model(x).mean())
    assert loss.requires_grad


@WAYS
def test_that_a_batch_may_be_skipped_after_one_that_was_not(options: dict[str, Any]) -> None:
    model, opt = _make(**options)

    def closure(skip: bool) -> Tensor:
        opt.zero_grad()
        loss = _loss(model)
        if not skip:
            loss.backward()
        return loss

    opt.step(lambda: closure(skip=False))
    before = _weights(model)
    opt.step(lambda: closure(skip=True))
    torch.testing.assert_close(_weights(model), before, rtol=0, atol=1e-6)  # the sphere's may be rounded


# -- gradients from before -------------------------------------------------------------------------------------------

GUIDE = r"see the guide, Training loops \(docs/guide/loops\.md\)$"
UNMOVED = "the weights are as before the step"


@torch.no_grad()
def _without_graph(model: nn.Module) -> Tensor:
    return _loss(model)


@pytest.mark.parametrize(
    ("closure", "message"),
    [
        (lambda model: _loss(model).backward(), rf"closure adds to .*; {UNMOVED}\. Call .*zero_grad\(\).*; {GUIDE}"),
        (_loss, rf"^the closure has to call backward: .*; {UNMOVED}\. Call .*; {GUIDE}"),
        (
            _without_graph,
            rf"leaves gradients .* no graph, as under torch\.no_grad\(\); {UNMOVED}\. Compute .*; {GUIDE}",
        ),
        (lambda model: 1.0, rf"leaves gradients [^;]* as they were; {UNMOVED}\. Call [^;]*zero_grad\(\)[^;]*; {GUIDE}"),
        (lambda model: None, rf"leaves gradients .*a wrapper .*Lightning's .*first_step\(\) before; {GUIDE}"),
    ],
    ids=["adds", "no backward", "no graph", "number", "nothing"],
)
def test_that_what_a_closure_does_to_gradients_from_before_has_an_error_of_its_own(closure: Any, message: str) -> None:
    model, opt = _make()
    _loss(model).backward()
    before = _weights(model)
    for _ in range(3):  # not all gradients are watched in the third
        with pytest.raises(RuntimeError, match=message) as caught:
            opt.step(lambda: closure(model))
        assert str(caught.value).count(". ") == 1  # cause and remedy
        assert ("Lightning" in str(caught.value)) == ("Lightning" in message)
        assert all(map(torch.equal, model.parameters(), before))
