"""That blocks of parameters do not have faults that they once had, each without an error."""

from __future__ import annotations

import pickle

import geoopt
import pytest
import torch

import rsam
from tests.optim.problems import closure_of, manifold_points
from tests.optim.stacked import SGD, TWO_RUNS, drive, twins_of


@TWO_RUNS
@pytest.mark.parametrize("when", ["before the first step", "later"])
def test_that_an_empty_state_entry_is_filled(cls, options, when) -> None:
    """Reading ``state[p]`` before a step creates an empty dictionary."""
    params = list(manifold_points()[name] for name in ("sphere", "sphere", "stiefel"))
    params = [geoopt.ManifoldParameter(p.detach().clone(), manifold=p.manifold) for p in params]
    twins = twins_of(params)
    looked, other = cls(params, **options), cls(twins, **options)
    if when == "later":
        drive([looked], params, range(2))
        drive([other], twins, range(2))
        for p, twin in zip(params, twins, strict=True):
            looked.state[p] = {}
            del other.state[twin]
    else:
        assert all(looked.state[p].get("momentum_buffer") is None for p in params)
    drive([looked], params, range(2, 6))
    drive([other], twins, range(2, 6))
    for p, twin in zip(params, twins, strict=True):
        assert torch.equal(p, twin)


def test_that_plain_parameters_that_change_precision_are_not_rounded() -> None:
    w = torch.nn.Parameter(torch.randn(50).bfloat16())
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.0, rho=0.1)
    opt.step(closure_of(opt, lambda: w.square().sum()))
    w.data = torch.randn(50)
    before = w.detach().clone()
    opt.step(closure_of(opt, lambda: w.square().sum()))
    assert torch.equal(w, before)


def test_that_a_stack_whose_points_change_precision_ascends_in_the_new_one() -> None:
    params = [manifold_points(torch.float32)["sphere"] for _ in range(2)]
    opt = rsam.RSAM(params, lr=0.1, rho=0.1)
    opt.step(closure_of(opt, lambda: sum((p**4).sum() for p in params)))
    points = manifold_points()["sphere"].detach()
    for p in params:
        p.data, p.grad = points.clone(), torch.ones_like(points)
    opt.first_step()
    moved = [(p.detach() - points).norm().item() for p in params]
    assert moved == pytest.approx([0.1 / 2**0.5] * 2, rel=1e-2)  # arcs and chords differ by their squares
    opt.restore()
    assert all(torch.equal(p, points) for p in params)


def test_that_adaptive_ascents_in_half_precision_are_those_in_single() -> None:
    moved = []
    for dtype in (torch.float32, torch.float16):
        w = torch.nn.Parameter(torch.full((1000,), 0.05, dtype=dtype))
        opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, rho=0.5, adaptive=True)
        w.grad = torch.full_like(w, 1e-2)
        opt.first_step()
        assert opt.grad_norm == pytest.approx(1000**0.5 * 5e-4, rel=2e-3)  # |w| |g|, rounded in float16
        moved.append(w.detach().double() - 0.05)
    torch.testing.assert_close(moved[1], moved[0], rtol=0, atol=2**-14)  # a unit of float16 at 0.05


class _Flat(geoopt.Manifold):
    """User's flat manifold, whose methods return their arguments."""

    name, ndim, reversible = "Flat", 1, False

    def retr(self, x, u):
        return x + u

    expmap = retr

    def inner(self, x, u, v=None, *, keepdim=False):
        return (u * (u if v is None else v)).sum(-1, keepdim=keepdim)

    def proju(self, x, u):
        return u

    def egrad2rgrad(self, x, u):
        return u

    def transp(self, x, y, v):
        return v

    def projx(self, x):
        return x

    def _check_point_on_manifold(self, x, *, atol=1e-5, rtol=1e-5):
        return True, None

    def _check_vector_on_tangent(self, x, u, *, atol=1e-5, rtol=1e-5):
        return True, None


@rsam.geometry.register(_Flat)
def raise_index(manifold, x, g):
    return g


def test_that_a_momentum_is_never_the_gradient_itself() -> None:
    x = geoopt.ManifoldParameter(torch.ones(3), manifold=_Flat())
    plain = torch.nn.Parameter(torch.ones(3))
    for p, cls in ((x, SGD), (plain, torch.optim.SGD)):
        opt = cls([p], lr=0.1, momentum=0.9)
        for _ in range(4):
            opt.zero_grad(set_to_none=False)
            (p**3).sum().backward()
            opt.step()
    torch.testing.assert_close(x.detach(), plain.detach())


def test_that_manifolds_of_a_class_of_ones_own_are_the_same_only_as_one_object() -> None:
    class Stretched(geoopt.Sphere):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def egrad2rgrad(self, x, u):
            return self.factor * super().egrad2rgrad(x, u)

    start = torch.tensor([0.6, 0.8])
    params = [geoopt.ManifoldParameter(start.clone(), manifold=Stretched(factor)) for factor in (1.0, 10.0)]
    for p in params:
        p.grad = torch.tensor([1.0, 0.0])
    SGD(params, lr=0.01).step()
    near, far = (torch.linalg.vector_norm(p.detach() - start) for p in params)
    assert far > 5 * near


def test_that_an_isometric_transport_is_refused_where_none_is_known() -> None:
    with pytest.raises(ValueError, match=r"parameter 0 of group 0 lives, on Birkhoff"):
        SGD([manifold_points()["birkhoff"]], lr=0.1, momentum=0.9, isometric=True)
    opt = SGD([manifold_points()["sphere"]], lr=0.1, momentum=0.9, isometric=True)
    with pytest.raises(ValueError, match="Birkhoff"):
        opt.add_param_group({"params": [manifold_points()["birkhoff"]]})
    assert len(opt.param_groups) == 1


def test_that_momentum_switched_off_for_a_while_stays_tangent() -> None:
    x = manifold_points()["sphere"]
    opt = SGD([x], lr=0.5, momentum=0.9)
    for momentum in (0.9, 0.9, 0.0, 0.0, 0.9):
        opt.param_groups[0]["momentum"] = momentum
        opt.step(closure_of(opt, lambda: (x**3).sum()))
        normal = (opt.state[x]["momentum_buffer"] * x.detach()).sum(-1)
        torch.testing.assert_close(normal, torch.zeros_like(normal), rtol=0, atol=1e-12)


def test_that_what_is_kept_for_a_step_does_not_grow_with_patterns_of_gradients() -> None:
    params = [manifold_points()["sphere"] for _ in range(12)]
    opt = SGD(params, lr=0.01, momentum=0.9)
    drive([opt], params, range(40), lambda step, i: (step * 7 + i * 5) % 11 > step % 5)
    assert sum(entry.tensor.numel() for entry in opt._buffers.values()) <= sum(p.numel() for p in params)


def test_that_copies_of_rsam_do_not_hold_the_weights_twice() -> None:
    params = [torch.nn.Parameter(torch.randn(20_000)) for _ in range(3)]
    opt = rsam.RSAM(params, torch.optim.SGD, lr=0.1)
    opt.step(closure_of(opt, lambda: sum(p.square().sum() for p in params)))
    weights = sum(p.numel() * p.element_size() for p in params)
    assert len(pickle.dumps(opt)) < 1.2 * weights


def test_that_frozen_parameters_are_not_perturbed_along_their_momentum() -> None:
    w, v = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    opt = rsam.RSAM([w, v], torch.optim.SGD, lr=0.1, momentum=0.9, rho=1.0, direction="momentum")
    opt.step(closure_of(opt, lambda: w.sum() + v.sum()))
    v.requires_grad_(False)
    opt.zero_grad()
    before = [p.detach().clone() for p in (w, v)]
    opt.first_step()
    assert torch.linalg.vector_norm(w.detach() - before[0]) == pytest.approx(1, rel=1e-6)
    assert torch.equal(v, before[1])


@pytest.mark.parametrize("name", ["stiefel", "canonical"])
def test_that_autocast_around_a_step_does_not_reach_it(name) -> None:
    ends = []
    for enabled in (False, True):
        x = manifold_points(torch.float32)[name]
        opt = rsam.RSAM([x], lr=0.1, momentum=0.9)
        target = torch.ones_like(x).cumsum(-1)
        for _ in range(3):
            with torch.autocast("cpu", enabled=enabled):  # autocast computes elementwise losses in single precision
                opt.step(closure_of(opt, lambda x=x, target=target: (x * target).sum()))
        ends.append(x.detach())
    assert torch.equal(*ends)


def test_that_options_of_all_groups_are_refused_in_one() -> None:
    group = {"params": [torch.nn.Parameter(torch.ones(2))], "every": 4, "radius": "point"}
    with pytest.raises(ValueError, match=r"\['every', 'radius'\] in parameter group 0 cannot differ by group"):
        rsam.RSAM([group], torch.optim.SGD, lr=0.1)


def test_that_a_direction_of_ones_own_needs_a_momentum_that_is_kept() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, direction=lambda weights: weights.momentum())
    with pytest.raises(ValueError, match="momentum that the base optimizer does not keep"):
        opt.step(closure_of(opt, w.sum))
    assert torch.equal(w.detach(), torch.ones(2))


def test_that_a_direction_that_is_no_number_is_told_from_an_overflow() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, direction=lambda weights: [0 / (0 * g) for g in weights.gradients])
    with pytest.raises(rsam.NotFinite, match="a direction of your own divides by zero"):
        opt.step(closure_of(opt, w.sum))


def test_that_adam_goes_on_after_a_conversion_to_double() -> None:
    params = [manifold_points(torch.float32)["sphere"], torch.nn.Parameter(torch.ones(3))]
    opt = rsam.optim.RiemannianAdam(params, lr=0.1)
    drive([opt], params, range(2))
    for p in params:
        p.data, p.grad = p.data.double(), None
    drive([opt], params, range(2, 4))
    assert all(opt.state[p]["exp_avg"].dtype == torch.float64 and opt.state[p]["step"] == 4 for p in params)
