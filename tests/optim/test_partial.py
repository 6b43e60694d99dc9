"""That the ascent may use a part of the batch, with right closures, statistics and failures."""

from __future__ import annotations

import operator

import geoopt
import numpy as np
import pytest
import torch
from torch import nn

import rsam
from tests.optim import reference
from tests.optim.problems import closure_of, copies, equal, manifold_points, network, robust

RHO, LR = 0.3, 0.1


def _batch(seed: int = 0, n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=rng, dtype=torch.float64), torch.randint(3, (n,), generator=rng)


# -- the step --------------------------------------------------------------------------------------------------------


def test_that_it_is_two_gradients_taken_by_hand() -> None:
    model, _ = network()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=LR, momentum=0.9, rho=RHO)
    params = list(model.parameters())
    loss = lambda x, y: nn.functional.cross_entropy(model(x), y)  # noqa: E731
    w, buffers = copies(params), [0.0] * 4
    for seed in range(20):
        x, y = _batch(seed)
        value = opt.step(*rsam.optim.partial_closures(opt, loss, (x, y), fraction=0.25))
        ours = copies(params)
        with torch.no_grad():
            for p, start in zip(params, w, strict=True):
                p.copy_(start)
        part = torch.autograd.grad(loss(x[:2], y[:2]), params)
        norm = sum(g.square().sum() for g in part).sqrt()
        with torch.no_grad():
            for p, g in zip(params, part, strict=True):
                p.add_(RHO * g / norm)
        perturbed = loss(x, y)
        whole = torch.autograd.grad(perturbed, params)
        buffers = [0.9 * b + g for b, g in zip(buffers, whole, strict=True)]
        w = [start - LR * b for start, b in zip(w, buffers, strict=True)]
        assert value.item() == pytest.approx(perturbed.item(), rel=1e-12)
        assert opt.grad_norm == pytest.approx(norm.item(), rel=1e-12)
        assert opt.sharpness is None
        with torch.no_grad():
            for p, own, expected in zip(params, ours, w, strict=True):
                torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)  # rounding
                p.copy_(own)


@pytest.mark.parametrize("transport", ["vector", "project"])
def test_that_it_follows_the_sphere(transport) -> None:
    """Compare with least squares of a unit vector in numpy."""
    rng, sphere = np.random.default_rng(0), reference.Sphere()
    a, b, w = rng.standard_normal((8, 4)), rng.standard_normal(8), np.array([0.6, 0.8, 0.0, 0.0])
    p = geoopt.ManifoldParameter(torch.tensor(w), manifold=geoopt.Sphere())
    opt = rsam.RSAM([p], lr=LR, rho=RHO, transport=transport)
    batch = torch.tensor(a), torch.tensor(b)
    for _ in range(10):
        value = opt.step(
            *rsam.optim.partial_closures(opt, lambda a, b: (a @ p - b).square().mean(), batch, fraction=0.25)
        )
        r = sphere.project(w, a[:2].T @ (a[:2] @ w - b[:2]))
        e = RHO * r / np.linalg.norm(r)
        y = sphere.retract(w, e)
        g = 2 / 8 * a.T @ (a @ y - b)
        assert value.item() == pytest.approx(np.mean((a @ y - b) ** 2), rel=1e-12)
        assert opt.grad_norm == pytest.approx(np.linalg.norm(r), rel=1e-10)  # 2/2: the mean of two squares
        back = sphere.back(w, e, y, sphere.project(y, g), exact=False) if transport == "vector" else g
        w = sphere.retract(w, -LR * sphere.project(w, back))
        # rounding, and errors of the reference's arc cosine
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=0, atol=1e-10)


def test_that_the_whole_as_its_own_part_is_the_plain_step() -> None:
    results = []
    for partial in (False, True):
        model, _ = network()
        opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=LR, momentum=0.9, rho=RHO)
        loss = lambda x, y, model=model: nn.functional.cross_entropy(model(x), y)  # noqa: E731
        for seed in range(5):
            whole, part = rsam.optim.partial_closures(opt, loss, _batch(seed), fraction=1)
            value = opt.step(whole, part) if partial else opt.step(whole)
        results.append((copies(model.parameters()), value, opt.sharpness))
    (weights, loss, sharpness), (same, again, rise) = results
    assert equal(weights, same)
    assert (again.item(), rise) == (loss.item(), sharpness)


def test_that_steps_between_ascents_run_the_whole_once() -> None:
    results = []
    for separate in (True, False):
        model, _ = network()
        opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=LR, rho=RHO, every=2)
        called = []

        def loss(x, y, model=model, called=called):
            called.append(len(x))
            return nn.functional.cross_entropy(model(x), y)

        for seed in range(4):
            whole, part = rsam.optim.partial_closures(opt, loss, _batch(seed), fraction=0.25)
            if separate and not opt.ascends:
                before = loss(*_batch(seed)).item()
                called.pop()
                assert opt.step(whole).item() == before
            else:
                opt.step(whole, part)
        results.append(copies(model.parameters()))
        assert called == [2, 8, 8, 2, 8, 8]
    assert equal(*results)


def test_that_an_ascent_along_the_momentum_does_not_need_the_part() -> None:
    results = []
    for part in (None, lambda: 1 / 0):
        model, loss = network()
        opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=LR, momentum=0.9, rho=RHO, direction="momentum")
        for _ in range(3):
            opt.step(closure_of(opt, loss), part)
        results.append(copies(model.parameters()))
    assert equal(*results)


def test_that_a_part_whose_gradient_is_not_finite_skips_the_step_and_spares_the_whole() -> None:
    params = list(manifold_points().values())
    opt, loss = rsam.RSAM(params, lr=0.01, nonfinite="skip"), robust(params)
    before, called = copies(params), []

    def part() -> torch.Tensor:
        value = closure_of(opt, loss)()
        params[0].grad[0] = float("nan")
        return value

    opt.step(lambda: called.append(None), part)
    assert called == []
    assert equal(params, before)
    assert opt.sharpness is None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("which", ["part", "whole"])
def test_that_an_exception_in_either_closure_leaves_the_weights_bitwise(which, error) -> None:
    params = list(manifold_points().values())
    opt, loss = rsam.RSAM(params, lr=0.01, momentum=0.9), robust(params)
    good = closure_of(opt, loss)
    opt.step(good, good)
    before, seen = copies(params), []

    def bad() -> None:
        good()
        seen.append(equal(params, before))
        raise error("stop")

    with pytest.raises(error, match="stop"):
        opt.step(*((good, bad) if which == "part" else (bad, good)))
    assert seen == [which == "part"]  # the whole batch is evaluated at the perturbed weights
    assert equal(params, before)
    opt.step(good, good)  # the optimizer still works
    assert not equal(params, before)


# -- the closures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "seen"), [(0.25, 2), (0.5, 4), (1, 8), (1.0, 8), (1e-9, 1)])
def test_that_the_part_is_the_first_examples_and_at_least_one(fraction, seen) -> None:
    w = nn.Parameter(torch.ones(5, dtype=torch.float64))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=LR)
    x, y = _batch()
    names, others = list("abcdefgh"), [object(), torch.tensor(2.0), torch.ones(3), list("ab")]
    calls = []

    def loss(*entries):
        calls.append(entries)
        return (entries[0] @ w).square().mean()

    whole, part = rsam.optim.partial_closures(opt, loss, (x, y, names, *others), fraction=fraction)
    for closure, n in ((whole, 8), (part, seen)):
        w.grad = torch.full_like(w, 1e3)  # the gradient of another step
        value = closure()
        inputs, labels, cut, *passed = calls.pop()
        assert torch.equal(inputs, x[:n])
        assert torch.equal(labels, y[:n])
        assert cut == names[:n]
        assert all(map(operator.is_, passed, others))  # arguments without examples go to both closures
        torch.testing.assert_close(w.grad, 2 / n * x[:n].T @ (x[:n] @ w.detach()))
        assert value.item() == pytest.approx((x[:n] @ w.detach()).square().mean().item())


@pytest.mark.parametrize("fraction", [0, -0.5, 1.01, 25, float("nan")])
def test_that_a_fraction_out_of_range_is_refused(fraction) -> None:
    opt = rsam.RSAM([nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=LR)
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\], got"):
        rsam.optim.partial_closures(opt, lambda x: x.sum(), (torch.ones(2),), fraction=fraction)


@pytest.mark.parametrize("batch", [torch.ones(8, 5), {"x": torch.ones(8, 5)}, (), ("a", torch.tensor(2.0))], ids=type)
def test_that_a_batch_whose_examples_cannot_be_counted_is_refused(batch) -> None:
    opt = rsam.RSAM([nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=LR)
    with pytest.raises(ValueError, match="batch must be a tuple or list with a tensor"):
        rsam.optim.partial_closures(opt, lambda *entries: entries[0].sum(), batch)


# -- batch statistics ------------------------------------------------------------------------------------------------


class _Normed(nn.Sequential):
    """Model that records the inputs of its batch-norm layers."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
        self.double()
        self.inputs: list[torch.Tensor] = []
        self[1].register_forward_pre_hook(lambda module, args: self.inputs.append(args[0].detach().clone()))

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self(x), y)


@pytest.mark.parametrize(
    ("options", "fraction", "passes", "kept"),
    [
        ({}, None, 2, 0),
        ({}, 0.5, 2, 1),
        ({}, 1, 2, 0),  # the part is the whole batch
        ({"rho": 0.0}, None, 1, 0),
        ({"rho": 0.0}, 0.5, 1, 0),
        ({"direction": "momentum"}, None, 1, 0),
        ({"direction": "momentum"}, 0.5, 1, 0),
    ],
)
def test_that_statistics_are_those_of_one_pass_over_the_whole_batch(options, fraction, passes, kept) -> None:
    model = _Normed()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=LR, momentum=0.9, **{"rho": RHO, **options})
    rsam.nn.update_statistics_once(opt, model)
    norm = model[1]
    for seed in range(3):
        weight, batch = model[0].weight.detach().clone(), _batch(seed)
        mean, var = norm.running_mean.clone(), norm.running_var.clone()
        whole, part = rsam.optim.partial_closures(opt, model.loss, batch, fraction=fraction or 1)
        model.inputs.clear()
        opt.step(whole, part if fraction else None)
        assert len(model.inputs) == passes
        x = model.inputs[kept]
        assert len(x) == 8
        if kept == 0 and options.get("direction") != "momentum":  # evaluated at the weights, not at perturbed ones
            bias = x - batch[0] @ weight.T
            torch.testing.assert_close(bias, bias[:1].expand_as(bias))
        torch.testing.assert_close(norm.running_mean, 0.9 * mean + 0.1 * x.mean(0))
        torch.testing.assert_close(norm.running_var, 0.9 * var + 0.1 * x.var(0))
        assert int(norm.num_batches_tracked) == seed + 1


def test_that_statistics_in_halves_are_those_of_one_pass() -> None:
    """With every=2 a step has a pass at the weights and a perturbed one, the next only one; also along momentum."""
    for direction, expected in (("gradient", [2, 1, 2, 1]), ("momentum", [1, 1, 1, 1])):
        model = _Normed()
        options = {"lr": LR, "momentum": 0.9, "rho": RHO, "every": 2, "direction": direction}
        opt = rsam.RSAM(model.parameters(), torch.optim.SGD, **options)
        rsam.nn.update_statistics_once(opt, model)
        for seed, passes in enumerate(expected):
            mean, batch = model[1].running_mean.clone(), _batch(seed)
            model.inputs.clear()
            if direction == "gradient" or not opt.ascends:
                opt.zero_grad()
                model.loss(*batch).backward()
            if opt.ascends:
                opt.first_step(zero_grad=True)
                model.loss(*batch).backward()
                opt.second_step()
            else:
                opt.step()
            assert len(model.inputs) == passes
            torch.testing.assert_close(model[1].running_mean, 0.9 * mean + 0.1 * model.inputs[0].mean(0))


@pytest.mark.parametrize("which", ["part", "whole", "second"])
def test_that_an_exception_undoes_what_the_other_pass_did_to_the_statistics(which) -> None:
    """The other pass saw a part of the batch or perturbed weights; a whole pass counts, as in any training loop."""
    model = _Normed()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=LR, rho=RHO)
    rsam.nn.update_statistics_once(opt, model)
    whole, part = rsam.optim.partial_closures(opt, model.loss, _batch(), fraction=0.5)
    before = copies(model.buffers())

    def failing(closure, at: int):
        calls = []

        def closure_that_fails() -> torch.Tensor:
            calls.append(None)
            value = closure()
            if len(calls) == at:
                raise OSError("stop")
            return value

        return closure_that_fails

    arguments = {
        "part": (whole, failing(part, 1)),
        "whole": (failing(whole, 1), part),
        "second": (failing(whole, 2), None),
    }[which]
    with pytest.raises(OSError, match="stop"):
        opt.step(*arguments)
    if which == "part":
        assert equal(model.buffers(), before)
    else:
        kept = model.inputs[1 if which == "whole" else 0]
        assert len(kept) == 8
        torch.testing.assert_close(model[1].running_mean, 0.1 * kept.mean(0))
        assert int(model[1].num_batches_tracked) == 1


def test_that_a_refusal_after_the_part_undoes_its_statistics() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.norm = nn.Embedding(5, 3, sparse=True), nn.BatchNorm1d(3)

        def forward(self, i: torch.Tensor) -> torch.Tensor:
            return (self.norm(self.embedding(i)) ** 3).sum()

    model = Words()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=LR)
    rsam.nn.update_statistics_once(opt, model)
    before = copies(model.buffers())
    with pytest.raises(RuntimeError, match="sparse"):
        opt.step(*rsam.optim.partial_closures(opt, model, (torch.arange(5),), fraction=0.5))
    assert equal(model.buffers(), before)


def test_that_random_numbers_are_not_shared_between_different_batches() -> None:
    masks: list[torch.Tensor] = []
    model = nn.Sequential(nn.BatchNorm1d(32), nn.Dropout(0.5), nn.Linear(32, 1))
    model[1].register_forward_hook(lambda module, args, output: masks.append(output.detach() != 0))
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=LR, momentum=0.9, every=2)
    rsam.nn.update_statistics_once(opt, model, rng=True)
    loss = lambda x: model(x).square().mean()  # noqa: E731
    whole, part = rsam.optim.partial_closures(opt, loss, (torch.randn(8, 32),), fraction=0.5)
    before = copies([*model.parameters(), *model.buffers()])
    with pytest.raises(RuntimeError, match="one batch for both passes"):
        opt.step(whole, part)
    assert masks == []
    assert equal([*model.parameters(), *model.buffers()], before)

    opt.step(whole)
    opt.step(whole, part)  # this step does not ascend, and evaluates only the whole batch
    assert torch.equal(masks[0], masks[1])
    assert len(masks) == 3
    assert not torch.equal(masks[1], masks[2])


def test_that_random_numbers_are_kept_for_the_only_pass_along_the_momentum() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(32, 1))
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=LR, momentum=0.9, direction="momentum")
    rsam.nn.update_statistics_once(opt, model, rng=True)
    x = torch.ones(4, 32)
    torch.manual_seed(3)
    for _ in range(2):
        opt.step(closure_of(opt, lambda: model(x).square().mean()))
    after = torch.get_rng_state()
    torch.manual_seed(3)
    for _ in range(2):
        nn.functional.dropout(x, 0.5)
    assert torch.equal(torch.get_rng_state(), after)


def test_that_halves_cannot_take_up_the_random_state_of_a_step_that_failed() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(32, 1))
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=LR)
    rsam.nn.update_statistics_once(opt, model, rng=True)
    closure = closure_of(opt, lambda: model(torch.ones(4, 32)).square().mean())
    opt.param_groups[0]["rho"] = -1.0
    with pytest.raises(ValueError, match="must not be negative"):
        opt.step(closure)
    opt.param_groups[0]["rho"] = 0.1
    closure()
    with pytest.raises(RuntimeError, match=r"needs step\(closure\)"):
        opt.first_step()
