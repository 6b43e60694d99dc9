"""That groups, state and methods of the base optimizer are the wrapper's."""

from __future__ import annotations

import copy
import io
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

import rsam
from tests.optim.quartic import (
    LR,
    RHO,
    START,
    quartic_loss,
    quartic_optimizer,
)


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
    w, opt = quartic_optimizer(rho=0.7)
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
            opt.step(lambda: (opt.zero_grad(), quartic_loss(w, 0).backward()))

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
    _, opt = quartic_optimizer()
    opt.defaults["rho"], opt.defaults["lr"] = 0.9, 0.01
    opt.add_param_group({"params": [torch.nn.Parameter(START.clone())]})
    assert (opt.param_groups[1]["rho"], opt.param_groups[1]["lr"]) == (0.9, 0.01)


class Sam(torch.optim.Optimizer):
    """The SAM of github.com/davda54/sam, as far as its checkpoints go, or one that shares the state of its base."""

    def __init__(self, params: Any, base: Any, shares: bool, **options: Any) -> None:
        super().__init__(params, {"rho": RHO, "adaptive": False, **options})
        self.base_optimizer = base(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups
        if shares:
            self.state = self.base_optimizer.state

    def step(self, gradient: Callable[[Tensor], Tensor]) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old_p"] = p.data.clone()
                p.grad = gradient(p.data)
        self.base_optimizer.step()


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize(
    ("base", "options"),
    [
        (partial(torch.optim.SGD, momentum=0.9), {}),
        (torch.optim.Adam, {"betas": (0.5, 0.75)}),
        (rsam.optim.RiemannianAdam, {"betas": (0.5, 0.75)}),
    ],
    ids=["SGD", "Adam", "RiemannianAdam"],
)
def test_that_a_checkpoint_of_another_sam_goes_on_with_the_state_that_it_has(base, options, shares: bool) -> None:
    w, v = (torch.nn.Parameter(START.clone()) for _ in range(2))
    sam = Sam([w], lambda groups, **options: base(groups, **options), shares=shares, lr=LR, **options)
    if shares:  # a base with a state makes no new one where there is an entry of another
        w.grad = torch.ones_like(w)
        sam.base_optimizer.step()
    sam.step(torch.sin) if shares else sam.state[w].update(old_p=START.clone())
    opt = rsam.RSAM([v], base, lr=1.0)
    with nullcontext() if shares else pytest.warns(UserWarning, match="starts anew; to go on with it, load"):
        opt.load_state_dict(copy.deepcopy(sam.state_dict()))
    assert opt.param_groups[0]["lr"] == LR and opt.param_groups[0]["rho"] == RHO
    if not shares:
        sam = Sam([w], lambda groups, **options: base(groups, **options), shares=False, lr=LR, **options)
    with torch.no_grad():
        v.copy_(w)
    for p, one in ((w, sam.base_optimizer), (v, opt.base_optimizer)):
        p.grad = torch.cos(p.detach())
        one.step()
    assert torch.equal(w, v)
    assert "old_p" not in opt.state[v]


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
        (
            lambda w: partial(torch.optim.SGD, differentiable=True),
            ValueError,
            "differentiable=True in parameter group 0",
        ),
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
        quartic_optimizer(rho=rho)
    w, opt = quartic_optimizer()
    opt.step(lambda: (opt.zero_grad(), quartic_loss(w, 0).backward()))
    opt.param_groups[0]["rho"], before = rho, w.detach().clone()
    with pytest.raises(ValueError, match="rho must be a number"):
        opt.first_step()
    assert torch.equal(w.detach(), before)


def test_that_numbers_of_numpy_can_be_loaded_from_a_checkpoint() -> None:
    _, opt = quartic_optimizer(rho=np.float64(RHO), lr=np.float64(LR))
    rates = torch.optim.lr_scheduler.LambdaLR(opt, lambda epoch: np.float64(0.5))
    radii = rsam.optim.rho_scheduler(torch.optim.lr_scheduler.StepLR, opt, step_size=1)
    file = io.BytesIO()
    torch.save({"optimizer": opt.state_dict(), "radii": radii.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)  # which knows no numbers of numpy
    assert saved["optimizer"]["param_groups"][0]["rho"] == RHO == opt.param_groups[0]["rho"]
    assert saved["optimizer"]["param_groups"][0]["lr"] == LR / 2 == rates.get_last_lr()[0]
