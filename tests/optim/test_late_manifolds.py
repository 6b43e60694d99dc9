"""That a manifold which a parameter gets after the optimizer was made is treated as one that it had before."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor, nn

import rsam
from tests.optim.problems import closure_of

NAME = r"parameter 0 of group 0 \(shape \(2, 1, 2, 2\), KernelSphere\(Sphere\)\)"


def _model() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 1))
    x = torch.randn(4, 1, 3, 3)
    return model, lambda: model(x).square().mean()


def _constrain(model: nn.Module) -> None:
    rsam.nn.constrain(model, rsam.geometry.KernelSphere(), nn.Conv2d)


def _weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("options", [{}, {"rho": 0.0}, {"every": 3}, {"direction": "momentum", "momentum": 0.9}])
@pytest.mark.parametrize("halves", [False, True])
def test_that_a_base_that_does_not_retract_is_refused_in_the_next_step(halves: bool, options: Any, steps: int) -> None:
    model, loss = _model()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, **{"lr": 0.1, "rho": 0.05, **options})
    for _ in range(steps):
        opt.step(closure_of(opt, loss))
    _constrain(model)
    before = _weights(model)
    for _ in range(2):  # also after the first refusal
        with pytest.raises(ValueError, match=rf"SGD would step {NAME} off its manifold; use rsam.optim.RiemannianSGD"):
            if halves:
                closure_of(opt, loss)()
                opt.first_step()
            else:
                opt.step(closure_of(opt, loss))
        assert all(map(torch.equal, model.parameters(), before))


def test_that_a_copied_optimizer_refuses_it_too() -> None:
    model, loss = _model()
    opt = rsam.RSAM(model.parameters(), torch.optim.AdamW, lr=0.1)
    opt.step(closure_of(opt, loss))
    _constrain(model)
    model, opt = copy.deepcopy((model, opt))
    with pytest.raises(ValueError, match=rf"AdamW would step {NAME} off"):
        opt.step(opt.zero_grad)


def test_that_a_group_added_through_the_base_is_checked() -> None:
    sphere = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    opt = rsam.RSAM([nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=0.1)
    opt.base_optimizer.add_param_group({"params": [sphere]})
    with pytest.raises(ValueError, match="SGD would step parameter 0 of group 1"):
        opt.step(closure_of(opt, lambda: (sphere**4).sum()))
    assert torch.equal(sphere.detach(), torch.tensor([0.6, 0.8]))


def test_that_what_geoopts_optimizers_get_wrong_there_is_warned_of_once_where_step_is_called() -> None:
    model, loss = _model()
    opt = rsam.RSAM(model.parameters(), geoopt.optim.RiemannianSGD, lr=0.1, momentum=0.9)
    _constrain(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            opt.step(closure_of(opt, loss))
    (warning,) = caught
    assert "its momentum starts from the Euclidean gradient" in str(warning.message)
    assert warning.filename == __file__


def test_that_a_manifold_without_an_isometric_transport_is_refused_if_it_was_asked_for() -> None:
    p = nn.Parameter(torch.full((3, 3), 1 / 3))
    opt = rsam.optim.RiemannianSGD([p], lr=0.1, momentum=0.9, isometric=True)
    opt.step(closure_of(opt, lambda: (p**2).sum() * 0))
    p.manifold = geoopt.BirkhoffPolytope()
    with pytest.raises(ValueError, match=r"isometric=True: no isometric transport .*parameter 0 of group 0"):
        opt.step(closure_of(opt, lambda: (p**4)[0].sum()))
    assert torch.equal(p.detach(), torch.full((3, 3), 1 / 3))


@pytest.mark.parametrize("make", [rsam.RSAM, rsam.optim.RiemannianSGD])
def test_that_ours_step_on_it_as_if_made_later_with_the_momentum_projected(make: Any) -> None:
    """The reference is an optimizer that is made on the manifold and loads the state of the one from before."""
    model, loss = _model()
    opt = make(model.parameters(), lr=0.1, momentum=0.9)
    opt.step(closure_of(opt, loss))
    _constrain(model)
    model_later, loss_later = _model()
    _constrain(model_later)
    model_later.load_state_dict(model.state_dict())
    later = make(model_later.parameters(), lr=0.1, momentum=0.9)
    later.load_state_dict(opt.state_dict())
    for _ in range(2):
        opt.step(closure_of(opt, loss))
        later.step(closure_of(later, loss_later))
    assert all(map(torch.equal, model.parameters(), model_later.parameters()))
