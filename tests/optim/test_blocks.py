"""That parameters computed at once step as each would alone, and plain ones as under torch's optimizers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
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
    assert_as_alone,
    assert_near,
    assert_same,
    drive,
    plain_pair,
    several,
    state_of,
    twins_of,
)

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


# -- plain parameters ------------------------------------------------------------------------------------------------

MODES = [{}, {"foreach": True}, {"foreach": False}, {"fused": True}]


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
