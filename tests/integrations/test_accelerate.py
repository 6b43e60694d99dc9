"""That loops with accelerate take the steps of a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rsam
from tests.integrations.problems import batches, difference, expected, model, optimizer, whole_steps

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
step = rsam.integrations.accelerate.step
ROUNDING = 1e-14  # three steps in float64 with sums in another order


def prepared(scaler=None, **options):
    accelerator = accelerate.Accelerator(cpu=True)
    accelerator.scaler = scaler
    network = model()
    return accelerator, *accelerator.prepare(network, optimizer(network, **options))


def windows(size: int = 2) -> list[list[tuple[Tensor, Tensor]]]:
    """Return the batches of three steps, each cut into pieces."""
    return [list(zip(x.split(size), y.split(size), strict=True)) for x, y in batches()]


def loss_of(network: nn.Module):
    return lambda batch: cross_entropy(network(batch[0]), batch[1])


@pytest.mark.parametrize("size", [4, 2, 1])
@pytest.mark.parametrize(
    "options, passes", [({}, 6), ({"every": 2}, 5), ({"direction": "momentum"}, 3), ({"rho": 0.0}, 3)], ids=str
)
def test_that_batches_of_a_step_are_one_batch(options, passes, size) -> None:
    accelerator, network, opt = prepared(**options)
    calls, loss = [], loss_of(network)
    values = [
        step(accelerator, network, opt, lambda batch: calls.append(1) or loss(batch), window)
        for window in windows(size)
    ]
    assert difference(network, expected(**options)) < ROUNDING
    assert len(calls) == passes * 4 // size
    assert [v.item() for v in values] == pytest.approx(whole_steps(model(), batches(), **options)[0], rel=1e-12)


def test_that_the_second_gradient_is_clipped() -> None:
    accelerator, network, opt = prepared()
    for window in windows():
        step(accelerator, network, opt, loss_of(network), window, max_grad_norm=0.3)
    assert difference(network, expected(clip=0.3)) < ROUNDING < difference(network, expected())


@pytest.mark.parametrize("overflowing", [None, 1, 4])
def test_that_scaled_gradients_take_the_same_steps_but_those_that_overflow(overflowing) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    accelerator, network, opt = prepared(scaler, nonfinite="skip")
    calls, loss = [], loss_of(network)

    def overflow(batch):
        calls.append(batch)
        return loss(batch) * (math.inf if len(calls) == overflowing else 1.0)

    for window in windows():
        step(accelerator, network, opt, overflow, window)
    by_hand = model()
    whole_steps(by_hand, batches()[0 if overflowing is None else 1 :])
    assert difference(network, by_hand) < ROUNDING
    assert scaler.get_scale() == (1024.0 if overflowing is None else 512.0)


def test_that_a_closure_and_the_halves_are_taken_by_the_prepared_optimizer() -> None:
    accelerator, network, opt = prepared()
    _, other, halves = prepared()
    for x, y in batches():

        def closure(x=x, y=y) -> Tensor:
            opt.zero_grad()
            loss = cross_entropy(network(x), y)
            accelerator.backward(loss)
            return loss

        opt.step(closure)
        halves.zero_grad()
        accelerator.backward(cross_entropy(other(x), y))
        halves.optimizer.first_step(zero_grad=True)
        accelerator.backward(cross_entropy(other(x), y))
        halves.step()
    assert difference(network, expected()) == difference(other, expected()) == 0


@pytest.mark.parametrize("options", [{}, {"direction": "momentum"}], ids=str)
def test_that_a_closure_of_which_accumulation_would_drop_batches_is_refused(options) -> None:
    accelerator, network, opt = prepared(**options)
    accelerator.gradient_accumulation_steps = 2
    calls = []

    def closure() -> None:
        calls.append(1)
        opt.optimizer.zero_grad()
        for part in windows()[0]:
            accelerator.backward(cross_entropy(network(part[0]), part[1]))

    def loop() -> None:
        for _ in range(2):
            with accelerator.accumulate(network):
                opt.step(closure)

    remedies = r"within accelerator\.accumulate.*integrations\.accelerate\.step; or call optimizer\.optimizer\.step"
    with pytest.raises(RuntimeError, match=remedies):
        loop()
    assert not calls
    assert difference(network, model()) == 0
    # the remedy: the closure has all batches of the step, past the wrapper
    by_hand = model()
    whole_steps(by_hand, batches()[:1], **options)
    opt.optimizer.step(closure)
    assert difference(network, by_hand) < ROUNDING
    for group in opt.param_groups:
        group["rho"] = 0.0
    calls.clear()
    loop()  # a step without ascent is the base optimizer's, in any loop
    assert calls == [1]


def test_that_the_halves_of_the_last_accumulated_batch_are_right_with_all_batches_evaluated_again() -> None:
    accelerator, network, opt = prepared()
    accelerator.gradient_accumulation_steps = 2
    for window in windows():
        for part in window:
            with accelerator.accumulate(network):
                accelerator.backward(loss_of(network)(part))
                if accelerator.sync_gradients:
                    opt.optimizer.first_step(zero_grad=True)
                    for again in window:
                        accelerator.backward(loss_of(network)(again))
                    opt.step()
                    opt.zero_grad()
    assert difference(network, expected()) < ROUNDING


def test_that_a_saved_state_is_loaded(tmp_path) -> None:
    accelerator, network, opt = prepared(every=2)
    for window in windows()[:2]:
        step(accelerator, network, opt, loss_of(network), window)
    accelerator.save_state(str(tmp_path))
    accelerator, again, opt = prepared(every=2)
    accelerator.load_state(str(tmp_path))
    step(accelerator, again, opt, loss_of(again), windows()[2])
    assert difference(again, expected(every=2)) < ROUNDING


def test_that_an_exception_in_the_second_pass_leaves_the_weights() -> None:
    accelerator, network, opt = prepared()
    calls, loss = [], loss_of(network)

    def failing(batch):
        calls.append(batch)
        return loss(batch) if len(calls) < 4 else 1 / 0

    with pytest.raises(ZeroDivisionError):
        step(accelerator, network, opt, failing, windows()[0])
    assert difference(network, model()) == 0


def test_that_the_loss_may_not_change_its_batch_in_place() -> None:
    accelerator, network, opt = prepared()
    with pytest.raises(RuntimeError, match=r"changes its batch in place.*x\.clone"):
        step(accelerator, network, opt, lambda batch: loss_of(network)((batch[0].add_(0.5), batch[1])), batches()[:1])
    assert difference(network, model()) == 0


def test_that_what_would_be_wrong_is_refused() -> None:
    accelerator, network, opt = prepared()
    with pytest.raises(ValueError, match="one batch or more"):
        step(accelerator, network, opt, loss_of(network), [])
    with pytest.raises(TypeError, match=r"rsam\.RSAM, got SGD"):
        step(accelerator, network, torch.optim.SGD(network.parameters()), loss_of(network), windows()[0])
    for window in (iter(windows()[0]), {"x": 1}, torch.ones(2, 2)):
        with pytest.raises(TypeError, match=rf"a list, got {type(window).__name__}; for a single batch pass \[batch\]"):
            step(accelerator, network, opt, loss_of(network), window)
    with pytest.raises(TypeError, match="scalar tensor, got dict"):
        step(accelerator, network, opt, lambda batch: {"loss": loss_of(network)(batch)}, windows()[0])
    assert difference(network, model()) == 0
    accelerator.gradient_accumulation_steps = 2
    with pytest.raises(ValueError, match="leave it at 1"):
        step(accelerator, network, opt, loss_of(network), windows()[0])
    scaled, network, opt = prepared(torch.amp.GradScaler("cpu"))
    with pytest.raises(ValueError, match='nonfinite="skip"'):
        step(scaled, network, opt, loss_of(network), windows()[0])
