"""That state, groups and parameters that change between steps are heeded in the next one."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor

import rsam
from tests.optim.problems import manifold_points
from tests.optim.stacked import (
    CLOSE,
    SGD,
    TWO_RUNS,
    Adam,
    assert_as_alone,
    assert_same,
    drive,
    several,
    state_of,
    twins_of,
)

# -- state that the user replaces ------------------------------------------------------------------------------------


def _new_entries(opt: torch.optim.Optimizer, p: Tensor, size: float) -> dict[str, Any]:
    """Make state entries for a parameter that differ much from its own; the momentum is a tangent."""
    entries = {name: entry.clone() for name, entry in opt.state[p].items()}
    geometry = rsam.geometry.geometry_of(p.manifold)
    name = "momentum_buffer" if "momentum_buffer" in entries else "exp_avg"
    generator = torch.Generator().manual_seed(99)
    ambient = size * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
    return {**entries, name: geometry.project(p.data, ambient)}


def _replace_one_entry(opt, params) -> None:
    entries = _new_entries(opt, params[1], 2.0)
    name = "momentum_buffer" if "momentum_buffer" in entries else "exp_avg"
    opt.state[params[1]][name] = entries[name]


def _replace_a_dictionary(opt, params) -> None:
    opt.state[params[1]] = _new_entries(opt, params[1], 2.0)


def _swap_two_dictionaries(opt, params) -> None:
    opt.state[params[0]], opt.state[params[2]] = (_new_entries(opt, params[i], 1.0) for i in (0, 2))


def _remove_one(opt, params) -> None:
    del opt.state[params[2]]


def _clear(opt, params) -> None:
    opt.state.clear()


def _replace_all(opt, params) -> None:
    new = defaultdict(dict)
    new[params[0]] = _new_entries(opt, params[0], 2.0)
    opt.state = new


def _give_other_memory(opt, params) -> None:
    """Do as loops that bring the state to another device."""
    for p in params:
        for name, entry in _new_entries(opt, p, 2.0).items():
            opt.state[p][name].data = entry


def _remove_second_moments(opt, params) -> None:
    for name in ("exp_avg_sq", "max_exp_avg_sq"):
        opt.state[params[1]].pop(name, None)


@pytest.mark.parametrize(
    "replace",
    [
        _replace_one_entry,
        _replace_a_dictionary,
        _swap_two_dictionaries,
        _remove_one,
        _clear,
        _replace_all,
        _give_other_memory,
        _remove_second_moments,
    ],
)
@TWO_RUNS
def test_that_replaced_state_is_heeded_in_the_next_step(cls, options, replace) -> None:
    points = several(3, ["sphere", "canonical", "spd", "kernel_sphere", "plain"])
    params, names = [p for ps in points.values() for p in ps], [n for n, ps in points.items() for _ in ps]
    opt = cls(params, **options)
    drive([opt], params, range(3))
    for ps in points.values():
        replace(opt, ps)
    twins = twins_of(params)
    alone = [cls([p], **options) for p in twins]
    for one, twin, state in zip(alone, twins, state_of(opt, params), strict=True):
        if state:
            one.state[twin] = state
    drive([opt], params, range(3, 6))
    drive(alone, twins, range(3, 6))
    assert_as_alone(opt, params, alone, twins, names)


@pytest.mark.parametrize("stacked", [False, True])
def test_that_an_entry_of_another_shape_is_refused_by_name(stacked) -> None:
    params = several(1 + stacked, ["sphere"])["sphere"]
    opt = SGD(params, lr=0.1, momentum=0.9)
    drive([opt], params, range(2))
    before = [p.detach().clone() for p in params]
    opt.state[params[-1]]["momentum_buffer"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=rf"momentum_buffer .*parameter {len(params) - 1} of group 0 .*\(2, 2\)"):
        drive([opt], params, range(1))
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def _set_lr(opt) -> None:
    opt.param_groups[1]["lr"] = 0.07


def _replace_a_group(opt) -> None:
    opt.param_groups[1] = {**opt.param_groups[1], "lr": 0.07}


def _replace_all_groups(opt) -> None:
    first, second = opt.param_groups
    opt.param_groups = [{**first}, {**second, "lr": 0.07}]


def _hand_a_parameter_over(opt) -> None:
    first, second = opt.param_groups
    second["lr"] = 0.07
    second["params"].insert(0, first["params"].pop())


@pytest.mark.parametrize("change", [_set_lr, _replace_a_group, _replace_all_groups, _hand_a_parameter_over])
@TWO_RUNS
def test_that_changed_groups_are_heeded_in_the_next_step(cls, options, change) -> None:
    params = several(4, ["stiefel"])["stiefel"]
    twins = twins_of(params)
    together = cls([{"params": params[:2]}, {"params": params[2:]}], **options)
    alone = [cls([p], **options) for p in twins]
    drive([together], params, range(2))
    drive(alone, twins, range(2))
    change(together)
    for one in alone[1 if change is _hand_a_parameter_over else 2 :]:
        one.param_groups[0]["lr"] = 0.07
    drive([together], params, range(2, 5))
    drive(alone, twins, range(2, 5))
    assert_as_alone(together, params, alone, twins, ["stiefel"] * 4)


def test_that_amsgrad_switched_on_later_shows_in_the_state() -> None:
    params = several(3, ["sphere"])["sphere"]
    opt = Adam(params, lr=0.02)
    drive([opt], params, range(2))
    opt.param_groups[0]["amsgrad"] = True
    drive([opt], params, range(2, 4))
    assert all("max_exp_avg_sq" in opt.state[p] for p in params)


# -- changes that the plan must notice -------------------------------------------------------------------------------


def _data(model) -> None:
    for p in model.parameters():
        p.data = p.data.double()


@pytest.mark.parametrize("cast", [_data, lambda model: model.to(torch.float64)], ids=["data", "module"])
@TWO_RUNS
def test_that_points_of_another_dtype_between_steps_go_on_in_it(cls, options, cast) -> None:
    single = manifold_points(torch.float32)
    chosen = [p for name in ("sphere", "stiefel", "kernel_sphere") for p in (single[name], *twins_of([single[name]]))]
    model = torch.nn.ParameterList(chosen)
    params = list(model.parameters())
    opt = cls(params, **options)
    drive([opt], params, range(3))
    model.zero_grad()
    cast(model)
    assert all(p.dtype == torch.float64 for p in params)
    twins = twins_of(params)
    alone = [cls([p], **options) for p in twins]
    for one, twin, state in zip(alone, twins, state_of(opt, params), strict=True):
        one.state[twin] = {k: v if k == "step" else v.double() for k, v in state.items()}
    drive([opt], params, range(3, 6))
    drive(alone, twins, range(3, 6))
    assert_as_alone(opt, params, alone, twins, ["another dtype"] * len(params))


@TWO_RUNS
def test_that_requires_grad_may_be_toggled_between_steps(cls, options) -> None:
    params = several(3, ["sphere"])["sphere"]
    twins = twins_of(params)
    opt, alone = cls(params, **options), [cls([p], **options) for p in twins]
    for start, frozen in ((0, True), (2, False), (4, True)):
        params[1].requires_grad_(not frozen)
        drive([opt], params, range(start, start + 2), lambda step, i, f=frozen: not (f and i == 1))
        drive(alone, twins, range(start, start + 2), lambda step, i, f=frozen: not (f and i == 1))
    assert_as_alone(opt, params, alone, twins, ["sphere"] * 3)


@pytest.mark.parametrize("count", [0, 1, 3])
@TWO_RUNS
def test_that_a_group_added_later_steps_with_its_own_options(cls, options, count) -> None:
    params = several(5, ["sphere"])["sphere"][: 2 + count]
    twins = twins_of(params)
    opt = cls(params[:2], **options)
    drive([opt], params[:2], range(2))
    drive([cls(twins[:2], **options)], twins[:2], range(2))
    alone = [cls([p], **{**options, "lr": 0.02 if i < 2 else 0.05}) for i, p in enumerate(twins)]
    for one, twin, state in zip(alone, twins, state_of(opt, params[:2]), strict=False):
        one.state[twin] = state
    opt.add_param_group({"params": params[2:], "lr": 0.05})
    drive([opt], params, range(2, 5))
    drive(alone, twins, range(2, 5))
    assert_as_alone(opt, params, alone, twins, ["sphere"] * len(params))


def test_that_a_manifold_attached_later_is_stepped_on_with_the_momentum_projected() -> None:
    params = [torch.nn.Parameter(p.detach().clone()) for p in several(2, ["sphere"])["sphere"]]
    opt = SGD(params, lr=0.1, momentum=0.9)
    drive([opt], params, range(2))
    expected = []
    for p in params:
        p.data = p.data / p.data.norm(dim=-1, keepdim=True)
        p.manifold = geoopt.Sphere()
        x, b = p.data.clone(), opt.state[p]["momentum_buffer"].clone()
        expected.append((x, b - (x * b).sum(-1, keepdim=True) * x))
    drive([opt], params, range(1))
    for p, (x, b) in zip(params, expected, strict=True):  # normalised steps along the tangent momentum
        r = p.grad - (x * p.grad).sum(-1, keepdim=True) * x
        y = x - 0.1 * (0.9 * b + r)
        torch.testing.assert_close(p.data, y / y.norm(dim=-1, keepdim=True), **CLOSE)


@TWO_RUNS
def test_that_a_lost_manifold_is_refused_by_name_and_nothing_is_written(cls, options) -> None:
    params = several(3, ["sphere"])["sphere"] + [torch.nn.Parameter(torch.ones(2, dtype=torch.float64))]
    opt = cls(params, **options)
    drive([opt], params, range(2))
    points, states = [p.detach().clone() for p in params], state_of(opt, params)
    manifold = params[1].manifold
    del params[1].manifold
    with pytest.raises(ValueError, match=r"parameter 1 of group 0 .*lost its manifold"):
        drive([opt], params, range(2, 3))
    assert_same([p.data for p in params], points)
    assert_same(state_of(opt, params), states)
    params[1].manifold = manifold
    drive([opt], params, range(2, 3))
    assert not torch.equal(params[1].data, points[1])
