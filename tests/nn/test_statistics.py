"""That the second pass does not change buffers, and both passes draw the same random numbers if asked."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import rsam


def convnet() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 3)
    )


def _train(model: nn.Module, opt: rsam.RSAM, steps: int = 3) -> int:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(8, 1, 8, 8, generator=generator)
        y = torch.randint(3, (8,), generator=generator)

        def closure(x=x, y=y):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            return loss

        opt.step(closure)
    return steps


def test_that_batch_statistics_follow_the_first_pass_only() -> None:
    """With a learning rate of 0 they must be those of plain forward passes; others update them twice."""
    plain, model = convnet(), convnet()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.0, rho=0.5)
    rsam.nn.update_statistics_once(opt, model)
    steps = _train(model, opt)
    reference = rsam.RSAM(plain.parameters(), torch.optim.SGD, lr=0.0, rho=0.0)
    _train(plain, reference)
    for (name, a), b in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert int(model[1].num_batches_tracked) == steps


def test_that_batch_norms_that_were_put_in_since_are_updated_once() -> None:
    model = convnet()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.0, rho=0.5)
    rsam.nn.update_statistics_once(opt, model)
    model[1] = nn.BatchNorm2d(4)  # as convert_sync_batchnorm does
    assert int(model[1].num_batches_tracked) == 0
    assert _train(model, opt) == int(model[1].num_batches_tracked)


def test_that_statistics_survive_an_exception_and_a_conversion() -> None:
    model = convnet()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.0, rho=0.5)
    rsam.nn.update_statistics_once(opt, model)
    _train(model, opt, steps=1)
    model.double()  # new buffers in double precision
    model[1].running_mean.fill_(1 / 3)
    expected, momentum = copy.deepcopy(model), model[1].momentum
    x, calls = torch.randn(8, 1, 8, 8, dtype=torch.float64), []

    def closure():
        calls.append(None)
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        if len(calls) == 2:
            raise ValueError("stop")
        return loss

    with pytest.raises(ValueError, match="stop"):
        opt.step(closure)
    assert int(model[1].num_batches_tracked) == 2
    mean = expected[0](x).mean((0, 2, 3))  # mean of the first pass, in float64
    torch.testing.assert_close(model[1].running_mean, (1 - momentum) / 3 + momentum * mean, rtol=1e-12, atol=1e-14)


def test_that_both_passes_share_dropout_masks_if_asked() -> None:
    masks: list[torch.Tensor] = []
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(32, 1))
    model[0].register_forward_hook(lambda module, args, output: masks.append(output.detach().clone()))
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.1)
    rsam.nn.update_statistics_once(opt, model, rng=True)
    x = torch.ones(4, 32)

    def closure():
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        return loss

    torch.manual_seed(3)
    opt.step(closure)
    after = torch.get_rng_state()
    opt.step(closure)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[1], masks[2])
    torch.manual_seed(3)
    nn.Dropout(0.5)(x)  # the random numbers of one pass, not of two
    assert torch.equal(torch.get_rng_state(), after)

    with pytest.raises(ZeroDivisionError):
        opt.step(lambda: 1 / 0)
    closure()
    with pytest.raises(RuntimeError, match=r"needs step\(closure\)"):  # not about the state before that failure
        opt.first_step()


def _dropout_step() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1))
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.1)
    rsam.nn.update_statistics_once(opt, model, rng=True)

    def closure():
        opt.zero_grad()
        loss = model(torch.ones(2, 4)).square().mean()
        loss.backward()
        return loss

    opt.step(closure)


def test_that_an_accelerator_that_is_not_in_use_is_not_initialised(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: asked.append("state") or [])
    _dropout_step()
    assert asked == []


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_that_both_passes_share_the_random_state_of_the_accelerator_in_use(monkeypatch, kind) -> None:
    device, state, restored = getattr(torch, kind), [0], []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: kind == "cuda")
    monkeypatch.setattr(torch.xpu, "is_initialized", lambda: kind == "xpu")

    def advancing():  # as a pass would that draws from it
        state[0] += 1
        return [torch.tensor([state[0]])]

    monkeypatch.setattr(device, "get_rng_state_all", advancing)
    monkeypatch.setattr(device, "set_rng_state_all", lambda states: restored.append(int(states[0])))
    _dropout_step()
    assert restored == [1, 2]  # before the second pass, the state before the first; at the end, that after the first


def test_that_other_buffers_follow_if_asked() -> None:
    class Counter(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 1)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    for buffers, expected in (("batch_norm", 2), ("all", 1)):
        model = Counter()
        opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.1)
        rsam.nn.update_statistics_once(opt, model, buffers=buffers)

        def closure(model=model, opt=opt):
            opt.zero_grad()
            loss = model(torch.ones(1, 2)).square().sum()
            loss.backward()
            return loss

        opt.step(closure)
        assert int(model.calls) == expected
    with pytest.raises(ValueError, match="buffers must be"):
        rsam.nn.update_statistics_once(opt, model, buffers="none")


def test_that_another_optimizer_is_refused() -> None:
    model = convnet()
    with pytest.raises(TypeError, match=r"takes an rsam\.RSAM, got SGD"):
        rsam.nn.update_statistics_once(torch.optim.SGD(model.parameters()), model)
