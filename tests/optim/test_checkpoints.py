"""That state is saved small, loaded by copy, and resumed from bitwise, also that of older and other optimizers."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor

import rsam
from tests.optim.problems import manifold_points
from tests.optim.stacked import (
    CLOSE,
    PLAIN_RUNS,
    PRESENCE,
    SGD,
    TWO_RUNS,
    Adam,
    assert_same,
    drive,
    plain_pair,
    several,
    state_of,
    twins_of,
)


def saved(tree: Any) -> bytes:
    """Write an object by torch.save."""
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def reloaded(tree: Any) -> Any:
    """Read an object by torch.load."""
    return torch.load(io.BytesIO(saved(tree)), weights_only=True)


def flat_points(names: list[str] | None = None) -> list[Tensor]:
    """Make three points on each manifold."""
    return [p for ps in several(3, names).values() for p in ps]


def unit_rows(*shape: int, seed: int = 0) -> Tensor:
    """Draw random points of the sphere."""
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


def tangent(x: Tensor, u: Tensor) -> Tensor:
    """Project onto the tangent space of the sphere."""
    return u - (x * u).sum(-1, keepdim=True) * x


# -- saving ----------------------------------------------------------------------------------------------------------


def _spheres(count: int) -> list[Tensor]:
    return [geoopt.ManifoldParameter(unit_rows(256, seed=i), manifold=geoopt.Sphere()) for i in range(count)]


@TWO_RUNS
def test_that_saving_state_writes_no_stack(cls, options) -> None:
    params = _spheres(100)
    opt = cls(params, **options)
    drive([opt], params, range(2))
    state = opt.state_dict()
    owned = {**state, "state": {i: {k: v.clone() for k, v in e.items()} for i, e in state["state"].items()}}
    assert len(saved(state)) == len(saved(owned))
    for name, entry in state["state"][42].items():
        assert len(saved(entry)) == len(saved(entry.clone())), name


@TWO_RUNS
def test_that_pickles_of_an_optimizer_are_no_larger_than_torchs(cls, options) -> None:
    params = _spheres(100)
    ours, torchs = cls(params, **options), (torch.optim.SGD if cls is SGD else torch.optim.Adam)(params, **options)
    for opt in (ours, torchs):
        drive([opt], params, range(1))
    # ours has a few additional options
    assert len(pickle.dumps(ours)) < 1.1 * len(pickle.dumps(torchs))


# -- loading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["sphere", "stiefel"], ["plain"]], ids=["points", "plain"])
@TWO_RUNS
def test_that_optimizers_loaded_from_one_state_share_nothing(cls, options, names) -> None:
    params = flat_points(names)
    opt = cls(params, **options)
    drive([opt], params, range(2))
    state = opt.state_dict()
    kept = copy.deepcopy(state)
    pair = []
    for _ in range(2):
        twins = twins_of(params)
        pair.append((cls(twins, **options), twins))
        pair[-1][0].load_state_dict(state)
    (first, ones), (second, others) = pair
    drive([first], ones, range(2, 4))
    assert_same(state_of(second, others), state_of(opt, params))
    assert_same(state["state"], kept["state"])
    drive([second], others, range(2, 4))
    assert_same([p.data for p in ones], [p.data for p in others])
    assert_same(state["state"], kept["state"])
    assert not torch.equal(ones[0].data, params[0].data)


def _through_state_dict(params, opt, cls, options) -> tuple[list[Tensor], torch.optim.Optimizer]:
    twins = twins_of(params)
    twin = cls(twins, **options)
    twin.load_state_dict(reloaded(opt.state_dict()))
    return twins, twin


@pytest.mark.parametrize(
    "resume",
    [
        _through_state_dict,
        lambda params, opt, cls, options: copy.deepcopy((params, opt)),
        lambda params, opt, cls, options: pickle.loads(pickle.dumps((params, opt))),
        lambda params, opt, cls, options: torch.load(io.BytesIO(saved((params, opt))), weights_only=False),
    ],
    ids=["state_dict", "deepcopy", "pickle", "torch.save"],
)
@pytest.mark.parametrize("presence", ["late", "one never"])
@TWO_RUNS
def test_that_stacks_resume_bitwise(cls, options, presence, resume) -> None:
    params = flat_points()
    opt = cls(params, **options, stabilize=2)
    drive([opt], params, range(3), PRESENCE[presence])
    twins, twin = resume(params, opt, cls, {**options, "stabilize": 2})
    for o, ps in ((opt, params), (twin, twins)):
        drive([o], ps, range(3, 7))
    assert_same([p.data for p in twins], [p.data for p in params])
    assert_same(state_of(twin, twins), state_of(opt, params))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
@TWO_RUNS
def test_that_groups_can_be_added_to_a_copy(cls, options, copier) -> None:
    params = flat_points(["sphere"])
    opt = copier(cls(params[:2], **options, stabilize=3))
    opt.add_param_group({"params": params[2:]})
    assert [group["stabilize"] for group in opt.param_groups] == [3, 3]


def test_that_options_a_checkpoint_lacks_keep_those_of_the_constructor() -> None:
    params = flat_points(["sphere"])
    opt = SGD(params, lr=0.1, momentum=0.9, stabilize=3, isometric=True)
    opt.load_state_dict(torch.optim.SGD(params, lr=0.2).state_dict())
    group = opt.param_groups[0]
    assert (group["lr"], group["momentum"], group["isometric"], group["stabilize"]) == (0.2, 0, True, 3)


# -- the released format -------------------------------------------------------------------------------------------


def _released(opt: torch.optim.Optimizer, params: list[Tensor], expanded: bool) -> dict[str, Any]:
    """Convert state to the format of rsam 0.1: steps are int, second moments may have the shape of the point."""
    state = opt.state_dict()
    for p, entries in zip(params, state["state"].values(), strict=True):
        for name, value in entries.items():
            if name == "step":
                entries[name] = int(value)
            elif name.endswith("exp_avg_sq") and expanded:  # a kernel has one second moment per filter, or one in all
                value = value.reshape(*value.shape, *[1] * (p.dim() - value.dim()))
                entries[name] = value.expand(p.shape).clone()
    for group in state["param_groups"]:
        for option in ("foreach", "fused", "isometric"):
            del group[option]
    return state


@pytest.mark.parametrize("expanded", [False, True])
@TWO_RUNS
def test_that_checkpoints_of_the_released_format_go_on_bitwise(cls, options, expanded) -> None:
    params = flat_points()
    opt = cls(params, **options)
    drive([opt], params, range(3))
    checkpoint = _released(opt, params, expanded)
    twins = twins_of(params)
    again = cls(twins, **{**options, "lr": 9.0})
    again.load_state_dict(reloaded(checkpoint))
    for o, ps in ((opt, params), (again, twins)):
        drive([o], ps, range(3, 6))
    assert_same([p.data for p in twins], [p.data for p in params])
    assert_same(state_of(again, twins), state_of(opt, params))


def test_that_a_released_adam_checkpoint_steps_on_spheres_by_the_paper() -> None:
    lr, beta1, beta2, eps, step = 0.05, 0.9, 0.99, 1e-8, 7
    points = [unit_rows(3, 4, seed=i) for i in range(3)]
    params = [geoopt.ManifoldParameter(x.clone(), manifold=geoopt.Sphere()) for x in points]
    firsts = [tangent(x, unit_rows(3, 4, seed=10 + i)) for i, x in enumerate(points)]
    seconds = [torch.rand(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    group = {
        "lr": lr, "betas": (beta1, beta2), "eps": eps, "weight_decay": 0.0, "amsgrad": False, "maximize": False,
        "decoupled_weight_decay": False, "stabilize": None, "step": step, "params": [0, 1, 2],
    }  # fmt: skip
    state = {
        i: {"step": step, "exp_avg": m.clone(), "exp_avg_sq": v.expand(3, 4).clone()}
        for i, (m, v) in enumerate(zip(firsts, seconds, strict=True))
    }
    opt = Adam(params)
    opt.load_state_dict({"state": state, "param_groups": [group]})
    drive([opt], params, range(1))
    for p, x, m, v in zip(params, points, firsts, seconds, strict=True):
        r = tangent(x, p.grad)
        m, v = beta1 * m + (1 - beta1) * r, beta2 * v + (1 - beta2) * r.square().sum(-1, keepdim=True)
        y = x - lr * (m / (1 - beta1 ** (step + 1))) / ((v / (1 - beta2 ** (step + 1))).sqrt() + eps)
        y = y / y.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(p.data, y, **CLOSE)
        torch.testing.assert_close(opt.state[p]["exp_avg"], tangent(y, m), **CLOSE)
        torch.testing.assert_close(opt.state[p]["exp_avg_sq"], v, **CLOSE)
        assert int(opt.state[p]["step"]) == step + 1


# -- checkpoints of others -------------------------------------------------------------------------------------------

OTHERS = {
    "geoopt SGD": (geoopt.optim.RiemannianSGD, SGD, {"lr": 0.02, "momentum": 0.9}),
    "geoopt Adam": (geoopt.optim.RiemannianAdam, Adam, {"lr": 0.02}),
    "torch SGD": (torch.optim.SGD, SGD, {"lr": 0.02, "momentum": 0.9}),
    "torch Adam": (torch.optim.Adam, Adam, {"lr": 0.02, "amsgrad": True}),
    "torch AdamW": (torch.optim.AdamW, Adam, {"lr": 0.02, "weight_decay": 0.0}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_that_checkpoints_of_others_go_on_with_plain_parameters_as_there(other) -> None:
    theirs, ours, options = OTHERS[other]
    params = [torch.nn.Parameter(torch.randn(5, 3, dtype=torch.float64)) for _ in range(3)]
    opt = theirs(params, **options)
    drive([opt], params, range(3))
    twins = twins_of(params)
    again = ours(twins, lr=9.0)
    again.load_state_dict(reloaded(opt.state_dict()))
    for o, ps in ((opt, params), (again, twins)):
        drive([o], ps, range(3, 6))
    for p, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(twin.data, p.data, **CLOSE)


@pytest.mark.parametrize("other", OTHERS)
def test_that_checkpoints_of_others_go_on_with_tangent_buffers_on_every_manifold(other) -> None:
    theirs, ours, options = OTHERS[other]
    points = {name: ps for name, ps in several(3).items() if name != "plain"}
    params = [p for ps in points.values() for p in ps]
    elsewhere = twins_of(params) if theirs.__module__.startswith("geoopt") else twins_of([p.data for p in params])
    opt = theirs(elsewhere, **options)
    drive([opt], elsewhere, range(1))
    again = ours(params, lr=9.0)
    again.load_state_dict(reloaded(opt.state_dict()))
    before = [p.data.clone() for p in params]
    drive([again], params, range(1, 2))
    name = "momentum_buffer" if ours is SGD else "exp_avg"
    for label, p, x in zip([n for n, ps in points.items() for _ in ps], params, before, strict=True):
        geometry = rsam.geometry.geometry_of(p.manifold)
        buffer = again.state[p][name]
        # to rounding; unprojected buffers of torch's would be off by a tenth or more
        torch.testing.assert_close(geometry.project(p.data, buffer), buffer, rtol=1e-8, atol=1e-9, msg=label)
        assert p.manifold.check_point_on_manifold(p.data, atol=1e-8, rtol=1e-8), label
        assert not torch.equal(p.data, x), label


@pytest.mark.parametrize("other", ["geoopt SGD", "torch SGD"])
def test_that_a_momentum_that_is_not_tangent_is_projected_and_gone_on_with(other) -> None:
    theirs, _, options = OTHERS[other]
    params = [geoopt.ManifoldParameter(unit_rows(3, 4, seed=i), manifold=geoopt.Sphere()) for i in range(3)]
    elsewhere = twins_of(params) if other == "geoopt SGD" else twins_of([p.data for p in params])
    opt = theirs(elsewhere, **options)
    drive([opt], elsewhere, range(1))
    for p, e in zip(params, elsewhere, strict=True):
        p.data.copy_(e.data / e.data.norm(dim=-1, keepdim=True))
    points, buffers = [p.data.clone() for p in params], [opt.state[e]["momentum_buffer"].clone() for e in elsewhere]
    again = SGD(params, lr=9.0)
    again.load_state_dict(opt.state_dict())
    if other == "torch SGD":
        assert max((x * b).sum(-1).abs().max() for x, b in zip(points, buffers, strict=True)) > 0.1
    drive([again], params, range(1))
    for p, x, b in zip(params, points, buffers, strict=True):
        b = options["momentum"] * tangent(x, b) + tangent(x, p.grad)
        y = x - options["lr"] * b
        y = y / y.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(p.data, y, **CLOSE)
        torch.testing.assert_close(again.state[p]["momentum_buffer"], tangent(y, b), **CLOSE)


def test_that_a_momentum_is_projected_also_beside_a_much_longer_one() -> None:
    params = [geoopt.ManifoldParameter(torch.tensor([1.0, 0.0, 0.0]), manifold=geoopt.Sphere()) for _ in range(2)]
    opt = SGD(params, lr=0.1, momentum=0.9)
    state = {
        0: {"momentum_buffer": torch.tensor([0.0, 1e6, 0.0])},
        1: {"momentum_buffer": torch.tensor([20.0, 1.0, 0])},
    }
    opt.load_state_dict({**opt.state_dict(), "state": state})
    for p in params:
        p.grad = torch.zeros(3)
    opt.step()
    y = torch.tensor([1.0, -0.1 * 0.9, 0.0])
    torch.testing.assert_close(params[1].data, y / y.norm())


def test_that_a_point_goes_on_from_torchs_adam_in_steps_of_its_size_whichever_numbers_had_gradients() -> None:
    """torch's second moments differ within a point, and are zero for numbers that never had a gradient."""
    x = geoopt.ManifoldParameter(unit_rows(4), manifold=geoopt.Sphere())
    gradient = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    elsewhere = torch.nn.Parameter(x.detach().clone())
    opt = torch.optim.Adam([elsewhere], lr=0.01)
    for _ in range(300):
        elsewhere.grad = gradient.clone()
        opt.step()
    again = Adam([x], lr=0.01)
    again.load_state_dict(opt.state_dict())
    before, x.grad = x.detach().clone(), gradient.clone()
    again.step()
    # steps along a constant gradient have length lr for each of four numbers, or for the point: at most 2 lr
    assert (x.detach() - before).norm() < 2 * 0.01


def test_that_second_moments_of_torchs_adam_for_complex_numbers_are_those_of_both_parts() -> None:
    x = manifold_points()["bounded_domain"]
    elsewhere = torch.nn.Parameter(x.detach().clone())
    elsewhere.grad = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    opt = torch.optim.Adam([elsewhere], betas=(0.9, 0.75))
    opt.step()
    again = Adam([x])
    again.load_state_dict(opt.state_dict())
    x.grad = torch.zeros_like(x)
    again.step()
    moment = again.state[x]["exp_avg_sq"]
    expected = 0.75 * 0.25 * elsewhere.grad.abs().square().sum()  # one for the whole point, and decayed once
    torch.testing.assert_close(moment, expected.reshape(moment.shape))


@pytest.mark.skipif(
    "decoupled_weight_decay" not in torch.optim.AdamW([torch.zeros(1)]).defaults,
    reason="groups of AdamW do not say that its decay is decoupled in this torch",
)
def test_that_decoupled_decay_of_a_loaded_adamw_is_not_taken_for_another_on_a_manifold() -> None:
    x = several(1, ["ball"])["ball"][0]
    opt = Adam([x], lr=0.01)
    decayed = torch.optim.AdamW([torch.nn.Parameter(x.detach().clone())], lr=0.01, weight_decay=0.5).state_dict()
    before = opt.state_dict()
    with pytest.raises(ValueError, match="decoupled_weight_decay would shrink"):
        opt.load_state_dict(decayed)
    assert opt.state_dict() == before  # nothing is loaded


@pytest.mark.parametrize("mode", [{}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("run", PLAIN_RUNS)
def test_that_checkpoints_of_plain_parameters_go_to_torch_and_back_bitwise(run, mode) -> None:
    for options in PLAIN_RUNS[run][3]:
        params, ours, twins, torchs = plain_pair(run, {**mode, **options})
        drive([ours], params, range(3))
        drive([torchs], twins, range(3))
        at_ours, at_torchs = reloaded(ours.state_dict()), reloaded(torchs.state_dict())
        ours.load_state_dict(at_torchs)
        torchs.load_state_dict(at_ours)
        drive([ours], params, range(3, 6))
        drive([torchs], twins, range(3, 6))
        assert_same([p.data for p in params], [p.data for p in twins])
        assert_same(state_of(ours, params), state_of(torchs, twins))


@pytest.mark.parametrize(("cls", "options"), [(SGD, {"lr": 0.1, "momentum": 0.9}), (Adam, {"lr": 0.1})])
def test_that_buffers_of_another_shape_are_refused_when_they_are_loaded(cls, options) -> None:
    """In the step torch would fail at them, after other parameters were written."""

    def made(*sizes: int):
        params = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
        for p in params:
            p.grad = torch.ones_like(p)
        return params, cls(params, **options)

    _, other = made(2, 4)
    other.step()
    params, opt = made(2, 3)
    with pytest.raises(ValueError, match=r"state of parameter 1 of group 0 has shape \(4,\) instead of \(3,\)"):
        opt.load_state_dict(other.state_dict())
    assert not opt.state
    opt.step()
    assert all(bool((p < 1).all()) for p in params)
