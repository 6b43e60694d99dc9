"""That parameters computed at once step as each would alone, and plain ones as under torch's optimizers."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor

import rsam
from tests.optim.problems import manifold_points

SGD, Adam = rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam
TWO_RUNS = pytest.mark.parametrize(
    ("cls", "options"),
    [(SGD, {"lr": 0.02, "momentum": 0.9, "dampening": 0.5}), (Adam, {"lr": 0.02, "amsgrad": True})],
    ids=["SGD", "Adam"],
)
#: Tolerance in float64. Sums over a stack may have another order than those over one point, and torch 2.14's
#: ``matrix_exp`` of one matrix has errors of up to 3e-11 where that of a stack is exact; over a few steps these add
#: up. A wrong gradient, state or option would make a difference a million times larger.
CLOSE = {"rtol": 1e-8, "atol": 1e-9}


def several(count: int, names: Iterable[str] | None = None) -> dict[str, list[geoopt.ManifoldParameter]]:
    """Make several points on each manifold, which will be stacked."""
    draws = [manifold_points(seed=seed) for seed in range(count)]
    points: dict[str, list[geoopt.ManifoldParameter]] = {}
    for name in names or draws[0]:
        manifold = draws[0][name].manifold
        project = rsam.geometry.geometry_of(manifold).project_point
        points[name] = [geoopt.ManifoldParameter(project(draw[name].data), manifold=manifold) for draw in draws]
    return points


def twins_of(params: Iterable[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Copy points on the same manifolds, and plain ones."""
    copies = []
    for p in params:
        copy = p.detach().to(dtype or p.dtype, copy=True)
        manifold = getattr(p, "manifold", None)
        copies.append(geoopt.ManifoldParameter(copy, manifold=manifold) if manifold else torch.nn.Parameter(copy))
    return copies


def drive(
    optimizers: Sequence[torch.optim.Optimizer],
    params: Sequence[Tensor],
    steps: Iterable[int],
    present: Callable[[int, int], bool] = lambda step, i: True,
) -> None:
    """Step along bounded gradients that pull each parameter to a target, present if ``present(step, i)``."""
    targets = []
    for i, p in enumerate(params):
        generator = torch.Generator().manual_seed(i)
        targets.append(torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype))
    for step in steps:
        for i, (p, target) in enumerate(zip(params, targets, strict=True)):
            away = p.detach() - target
            p.grad = away / (1 + away.abs() ** 2) if present(step, i) else None
        for optimizer in optimizers:
            optimizer.step()


def state_of(optimizer: torch.optim.Optimizer, params: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Copy the state of each parameter."""
    return [
        {k: v.clone() if isinstance(v, Tensor) else v for k, v in optimizer.state.get(p, {}).items()} for p in params
    ]


def assert_near(params: Sequence[Tensor], expected: Sequence[Tensor], names: Sequence[str], **bounds: float) -> None:
    """Assert that parameters are near the expected ones."""
    for name, p, e in zip(names, params, expected, strict=True):
        torch.testing.assert_close(p.data, e.data, **(bounds or CLOSE), msg=lambda m, name=name: f"{name}: {m}")


def assert_same(tree: Any, expected: Any) -> None:
    """Assert that nested lists and dictionaries of tensors are equal bitwise."""
    torch.testing.assert_close(tree, expected, rtol=0, atol=0, equal_nan=True)


def assert_as_alone(
    optimizer: torch.optim.Optimizer,
    params: Sequence[Tensor],
    alone: Sequence[torch.optim.Optimizer],
    twins: Sequence[Tensor],
    names: Sequence[str],
) -> None:
    """Assert that parameters and their state are near those of optimizers with one parameter each."""
    assert_near(params, twins, names)
    for name, p, twin, one in zip(names, params, twins, alone, strict=True):
        state, expected = optimizer.state.get(p, {}), one.state.get(twin, {})
        torch.testing.assert_close(dict(state), dict(expected), **CLOSE, msg=lambda m, name=name: f"{name}: {m}")


# -- equal parameters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (SGD, {}),
        (SGD, {"momentum": 0.9}),
        (SGD, {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
        (SGD, {"momentum": 0.9, "nesterov": True, "maximize": True}),
        (SGD, {"momentum": 0.9, "isometric": True, "stabilize": 2}),
        (Adam, {}),
        (Adam, {"amsgrad": True, "weight_decay": 0.1, "betas": (0.5, 0.9)}),
        (Adam, {"maximize": True, "isometric": True}),
    ],
)
def test_that_equal_parameters_of_two_groups_step_as_each_would_alone(cls, options) -> None:
    points = several(4)
    if options.get("isometric"):
        del points["birkhoff"]  # no isometric transport is known on this manifold
    names, params = [n for n, ps in points.items() for _ in ps], [p for ps in points.values() for p in ps]
    blocks = rsam.geometry.Product(params).blocks
    assert all(len(block.indices) == 4 or block.plain for block in blocks)
    twins = twins_of(params)
    together = cls([{"params": params[::2]}, {"params": params[1::2], "lr": 0.03}], lr=0.01, **options)
    alone = [cls([p], lr=(0.01, 0.03)[i % 2], **options) for i, p in enumerate(twins)]
    drive([together], params, range(5))
    drive(alone, twins, range(5))
    assert_as_alone(together, params, alone, twins, names)


PRESENCE = {
    "frozen for a while": lambda step, i: i % 3 != 1 or step not in (2, 3),
    "late": lambda step, i: step >= i % 3,
    "alternating": lambda step, i: (step + i) % 2 == 0,
    "one never": lambda step, i: i % 3 != 1,
    "one at a time": lambda step, i: step % 3 == i % 3,
}


@pytest.mark.parametrize("presence", PRESENCE)
@TWO_RUNS
def test_that_a_parameter_without_a_gradient_in_some_steps_ends_where_it_would_alone(cls, options, presence) -> None:
    points = several(3)
    names, params = [n for n, ps in points.items() for _ in ps], [p for ps in points.values() for p in ps]
    twins = twins_of(params)
    together, alone = cls(params, **options), [cls([p], **options) for p in twins]
    drive([together], params, range(6), PRESENCE[presence])
    drive(alone, twins, range(6), PRESENCE[presence])
    assert_as_alone(together, params, alone, twins, names)
    if cls is Adam:  # each parameter counts its own steps
        taken = [sum(PRESENCE[presence](step, i) for step in range(6)) for i in range(len(params))]
        assert [int(together.state[p].get("step", 0)) for p in params] == taken


@pytest.mark.parametrize(
    "options", [{"dampening": 0.3}, {"nesterov": True}, {"maximize": True, "weight_decay": 0.2}], ids=str
)
def test_that_every_option_of_sgd_is_torchs_where_the_manifold_is_flat(options) -> None:
    flat, factor = geoopt.Stereographic(0.0), 4  # factor of the metric, by which gradients are divided
    points = [geoopt.ManifoldParameter(torch.randn(3, 4, dtype=torch.float64), manifold=flat) for _ in range(3)]
    twins = [torch.nn.Parameter(p.detach().clone()) for p in points]
    options = {"momentum": 0.9, **options}
    ours, torchs = SGD(points, lr=0.1, **options), torch.optim.SGD(twins, lr=0.1 / factor, **options)
    drive([ours], points, range(6), PRESENCE["late"])
    drive([torchs], twins, range(6), PRESENCE["late"])
    assert_near(points, twins, ["flat"] * 3)
    for p, twin in zip(points, twins, strict=True):
        torch.testing.assert_close(ours.state[p]["momentum_buffer"] * factor, torchs.state[twin]["momentum_buffer"])


@pytest.mark.parametrize("name", ["sphere", "stiefel"])
def test_that_a_stack_under_adam_steps_as_in_geoopt_where_its_steps_are_right(name) -> None:
    params = several(3, [name])[name]
    twins = twins_of(params)
    # an eps of the size of the gradients, so that its place shows
    options = {"lr": 0.05, "betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.2, "amsgrad": True}
    ours, theirs = Adam(params, **options), geoopt.optim.RiemannianAdam(twins, **options)
    drive([ours], params, range(6), PRESENCE["late"])
    drive([theirs], twins, range(6), PRESENCE["late"])
    assert_near(params, twins, [name] * 3)
    for p, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(ours.state[p]["exp_avg"], theirs.state[twin]["exp_avg"], **CLOSE)


@pytest.mark.parametrize("name", ["sphere", "stiefel"])
@TWO_RUNS
def test_that_an_isometric_transport_keeps_the_length_of_a_buffer_and_the_cheapest_does_not(cls, options, name) -> None:
    buffer = "momentum_buffer" if cls is SGD else "exp_avg"

    def lengths(isometric: bool) -> list[float]:
        x = manifold_points()[name]
        opt, seen = cls([x], isometric=isometric, **{**options, "lr": 0.5}), []
        for step in range(2):
            drive([opt], [x], [step])
            if cls is SGD:  # the second step is without momentum, and carries that of the first along another tangent
                opt.param_groups[0]["momentum"] = 0.0
            seen.append(float(x.manifold.inner(x.detach(), opt.state[x][buffer]).sum().sqrt()))
        return seen

    x, first = manifold_points()[name], 1.0 if cls is SGD else 0.1  # the share of the first gradient
    drive([], [x], [0])
    expected = first * float(x.manifold.egrad2rgrad(x.detach(), x.grad).norm())
    assert lengths(True)[0] == pytest.approx(expected, rel=1e-12)  # rounding
    assert lengths(False)[0] < 0.999 * expected
    if cls is SGD:
        assert lengths(True)[1] == pytest.approx(expected, rel=1e-12)


@TWO_RUNS
def test_that_the_entries_of_equal_parameters_are_views_of_one_stack(cls, options) -> None:
    params = several(5, ["sphere"])["sphere"]
    opt = cls(params, **options)
    drive([opt], params, range(1))
    held = [dict(opt.state[p]) for p in params]
    drive([opt], params, range(3))
    for name in held[0]:
        assert len({entries[name].untyped_storage().data_ptr() for entries in held}) == 1
        assert all(opt.state[p][name] is entries[name] for p, entries in zip(params, held, strict=True))
    assert not torch.equal(held[0]["momentum_buffer" if cls is SGD else "exp_avg"], torch.zeros(3, 4))


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


@pytest.mark.parametrize(
    "replace",
    [_replace_one_entry, _replace_a_dictionary, _swap_two_dictionaries, _remove_one, _clear, _replace_all],
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


# -- plain parameters ------------------------------------------------------------------------------------------------

PLAIN_RUNS = {
    "SGD": (
        SGD,
        torch.optim.SGD,
        {},
        [
            {},
            {"momentum": 0.9},
            {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1},
            {"momentum": 0.9, "nesterov": True, "maximize": True},
        ],
    ),
    "Adam": (
        Adam,
        torch.optim.Adam,
        {},
        [{}, {"amsgrad": True, "weight_decay": 0.1}, {"maximize": True, "betas": (0.5, 0.9), "eps": 1e-3}],
    ),
    "AdamW": (
        Adam,
        torch.optim.AdamW,
        {"decoupled_weight_decay": True},
        [{"weight_decay": 0.1}, {"weight_decay": 0.1, "amsgrad": True, "maximize": True}],
    ),
}
MODES = [{}, {"foreach": True}, {"foreach": False}, {"fused": True}]


def plain_pair(run: str, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[Any, Any, Any, Any]:
    """Return plain parameters after steps by our optimizer and by torch's."""
    ours, torchs, ours_only, _ = PLAIN_RUNS[run]
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 3), (7,), (2, 3, 2), ())
    params = [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]
    twins = twins_of(params)
    return params, ours(params, lr=0.05, **ours_only, **options), twins, torchs(twins, lr=0.05, **options)


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [
        (dtype, mode)
        for dtype, mode in itertools.product((torch.float32, torch.float64, torch.bfloat16, torch.complex64), MODES)
        if not (dtype.is_complex and "fused" in mode)  # torch refuses these
    ],
)
@pytest.mark.parametrize("run", PLAIN_RUNS)
def test_that_plain_parameters_step_bitwise_as_in_torch(run, dtype, mode) -> None:
    for options in PLAIN_RUNS[run][3]:
        params, ours, twins, torchs = plain_pair(run, {**mode, **options}, dtype)
        # torch's fused SGD fails if some parameters have a momentum and others do not
        presence = PRESENCE["frozen for a while" if "fused" in mode else "late"]
        drive([ours], params, range(5), presence)
        drive([torchs], twins, range(5), presence)
        assert_same([p.data for p in params], [p.data for p in twins])
        assert_same(state_of(ours, params), state_of(torchs, twins))


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


# -- wholly or not at all --------------------------------------------------------------------------------------------


class _Stuck(geoopt.Sphere):
    """User's manifold whose retraction fails when a flag is set."""

    fails = False

    def retr(self, x, u):
        if self.fails:
            raise ArithmeticError("stuck")
        return super().retr(x, u)


def _stuck() -> tuple[list[Tensor], Callable[[], Any]]:
    manifold, points = _Stuck(), several(2, ["sphere"])["sphere"]
    params = [geoopt.ManifoldParameter(p.data, manifold=manifold) for p in points]
    return params, lambda: setattr(manifold, "fails", True)


def _singular() -> tuple[list[Tensor], Callable[[], Any]]:
    params = several(2, ["spd"])["spd"]
    return params, lambda: params[1].data.zero_()


def _fail(cls, options, failing) -> tuple[BaseException, torch.optim.Optimizer, list[Tensor], list[Tensor], Any]:
    """Step until the second of two blocks fails; return the error, and copies of everything from before."""
    bad, spoil = failing()
    plain = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    params = [plain, *several(2, ["stiefel"])["stiefel"], *bad]
    opt = cls([{"params": params[:2]}, {"params": params[2:]}], **options)
    drive([opt], params, range(2))
    spoil()
    points, states = [p.detach().clone() for p in params], state_of(opt, params)
    with pytest.raises((ArithmeticError, RuntimeError)) as caught:
        drive([opt], params, range(2, 3))
    return caught.value, opt, params, points, states


@pytest.mark.parametrize("failing", [_stuck, _singular])
@TWO_RUNS
def test_that_a_block_which_fails_leaves_all_others_bitwise(cls, options, failing) -> None:
    _, opt, params, points, states = _fail(cls, options, failing)
    assert_same([p.data for p in params], points)
    assert_same(state_of(opt, params), states)
    assert [group["step"] for group in opt.param_groups] == [2, 2]


@pytest.mark.parametrize(
    ("failing", "name"),
    # the error names the first parameter of the block, or the one with the singular point
    [(_stuck, "parameter 1 of group 1"), (_singular, "parameter 2 of group 1")],
)
def test_that_a_block_which_fails_is_named(failing, name) -> None:
    error = _fail(SGD, {"lr": 0.1}, failing)[0]
    assert name in " ".join([str(error), *getattr(error, "__notes__", [])])


# -- half precision --------------------------------------------------------------------------------------------------


@TWO_RUNS
def test_that_steps_in_bfloat16_are_those_in_float32_rounded(cls, options) -> None:
    real = {name: p for name, p in manifold_points(torch.float32).items() if not p.is_complex() and name != "plain"}
    params = twins_of([p for p in real.values() for _ in range(2)], torch.bfloat16)
    names = [name for name in real for _ in range(2)]
    opt = cls(params, **options)
    for step in range(4):
        wide = twins_of(params, torch.float32)
        reference = cls(wide, **options)
        for twin, state in zip(wide, state_of(opt, params), strict=True):
            if state:
                reference.state[twin] = {k: v.float() for k, v in state.items()}
        drive([opt], params, range(step, step + 1))
        for p, twin in zip(params, wide, strict=True):
            twin.grad = p.grad.float()
        reference.step()
        for name, p, twin in zip(names, params, wide, strict=True):
            for k, v in {"point": p.data, **opt.state[p]}.items():
                e = twin.data if k == "point" else reference.state[twin][k]
                assert v.dtype == (torch.float32 if k == "step" else torch.bfloat16), (name, k)
                # one rounding of the result, and another if float32 itself rounds to the other side
                bound = 2 * torch.finfo(torch.bfloat16).eps * float(e.abs().max())
                torch.testing.assert_close(v.float(), e, rtol=0, atol=bound, msg=lambda m, n=name, k=k: f"{n} {k}: {m}")
