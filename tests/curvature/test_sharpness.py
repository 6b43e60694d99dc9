"""That sharpness equals closed forms for quadratics, linear functions on spheres, and single examples."""

from __future__ import annotations

import math
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor, nn

from rsam.curvature import RiemannianHessian, sharpness, trace
from tests.curvature.problems import (
    DOUBLE,
    batches,
    examples,
    functional,
    generator,
    labelled,
    mixed_network,
    network,
    normal,
    probed,
)

NOTHING = torch.zeros(1, 1, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE)


def only(value: Tensor, target: Tensor) -> Tensor:
    return value


class Quadratic(nn.Module):
    """Quadratic loss (w - c)' A (w - c) / 2, whatever the inputs."""

    def __init__(self, w: Tensor, a: Tensor, c: Tensor | float = 0.0) -> None:
        super().__init__()
        self.w, self.a, self.c = nn.Parameter(w), a, c

    def at(self, w: Tensor) -> Tensor:
        return (w - self.c) @ self.a @ (w - self.c) / 2

    def forward(self, inputs: Tensor) -> Tensor:
        return self.at(self.w)


def anisotropic(size: int = 6) -> Quadratic:
    basis = torch.linalg.qr(normal(size, size)).Q
    return Quadratic(normal(size, seed=1), basis * torch.linspace(-1, 4, size, dtype=DOUBLE) @ basis.mT)


def rise_of(model: nn.Module, **options: Any) -> float:
    return float(sharpness(model, only, model.parameters(), NOTHING, **options))


def greatest_rise(model: Quadratic, rho: float) -> float:
    """Compute the largest rise of a quadratic in a ball by the secular equation: e = (m - A)^-1 g with m > A."""
    values, vectors = torch.linalg.eigh(model.a)
    g = vectors.mT @ (model.a @ model.w.detach())
    low, high = float(values[-1]), float(values[-1] + g.norm() / rho)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float((g / (middle - values)).norm()) > rho else (low, middle)
    e = g / (high - values)
    return float(g @ e + (values * e * e).sum() / 2)


@pytest.mark.parametrize("rho", [0.05, 1.0])
def test_that_one_step_is_the_step_of_sam_on_a_quadratic(rho: float) -> None:
    model = anisotropic()
    w = model.w.detach()
    g = model.a @ w
    expected = model.at(w + rho * g / g.norm()) - model.at(w)
    estimate = sharpness(model, only, model.parameters(), NOTHING, rho)
    assert float(estimate) == pytest.approx(float(expected), rel=1e-12)
    assert estimate.standard_error == 0 and estimate.products == 3  # centre, gradient, end


@pytest.mark.parametrize("rho", [0.05, 1.0, 5.0])
def test_that_more_steps_approach_the_maximum_in_the_ball_and_never_pass_it(rho: float) -> None:
    model = anisotropic()
    greatest = greatest_rise(model, rho)
    rises = [rise_of(model, rho=rho, steps=steps) for steps in (1, 5, 40)]
    assert rises[0] <= rises[1] + 1e-12 and rises[0] < rises[2]
    assert all(rise <= greatest * (1 + 1e-12) for rise in rises)
    assert rises[2] == pytest.approx(greatest, rel=1e-3)


def test_that_restarts_leave_a_stationary_point() -> None:
    model = Quadratic(torch.zeros(5, dtype=DOUBLE), torch.diag(torch.tensor([0.5, 1.0, 1.0, 2.0, 4.0], dtype=DOUBLE)))
    assert rise_of(model, rho=0.3, steps=10) == 0  # the gradient is zero
    # the top of the ball is along the last axis
    assert rise_of(model, rho=0.3, steps=30, restarts=3) == pytest.approx(0.3**2 / 2 * 4, rel=1e-3)
    sinking = Quadratic(torch.zeros(5, dtype=DOUBLE), -torch.eye(5, dtype=DOUBLE))
    assert rise_of(sinking, rho=0.3, steps=10, restarts=3) == 0  # the centre belongs to the ball


def test_that_the_worst_case_is_never_less_than_one_step_and_grows_with_the_radius() -> None:
    model, batch = mixed_network(), labelled()
    arguments = (model, nn.CrossEntropyLoss(), list(model.parameters()), batch)
    for rho in (0.05, 0.5, 3.0):
        one = float(sharpness(*arguments, rho))
        assert one > 0
        for options in ({"steps": 2}, {"steps": 7}, {"restarts": 2}, {"steps": 3, "restarts": 1}):
            assert float(sharpness(*arguments, rho, **options)) >= one  # type: ignore[arg-type]
    steps = [float(sharpness(*arguments, rho, steps=20)) for rho in (0.1, 0.3, 1.0)]
    assert steps == sorted(steps) and steps[0] < steps[2]


# -- spheres ----------------------------------------------------------------------------------------------------------


class Height(nn.Module):
    """Linear function of a point."""

    def __init__(self, x: Tensor, a: Tensor, manifold: geoopt.Manifold) -> None:
        super().__init__()
        self.x, self.a = geoopt.ManifoldParameter(x, manifold=manifold), a

    def forward(self, inputs: Tensor) -> Tensor:
        return (self.a * self.x).sum()


@pytest.mark.parametrize("rho", [0.1, 0.8])
def test_that_a_linear_function_on_a_sphere_rises_by_its_closed_form(rho: float) -> None:
    x, a = nn.functional.normalize(normal(4), dim=0), normal(4, seed=1)
    angle = math.acos(float(x @ a / a.norm()))
    assert angle > rho

    def rise(turn: float) -> float:
        return float(a.norm()) * (math.cos(angle - turn) - math.cos(angle))

    # along geodesics, which turn by rho; normalising x + e would turn by the angle whose tangent is rho
    assert rise_of(Height(x, a, geoopt.SphereExact()), rho=rho) == pytest.approx(rise(rho), rel=1e-12)
    assert rise_of(Height(x, a, geoopt.Sphere()), rho=rho) == pytest.approx(rise(math.atan(rho)), rel=1e-12)
    # one step finds the maximum; more steps or restarts do not lose it
    more = rise_of(Height(x, a, geoopt.SphereExact()), rho=rho, steps=10, restarts=2)
    assert more == pytest.approx(rise(rho), rel=1e-12)
    # a ball that contains the top, which many steps find
    beyond = rise_of(Height(x, a, geoopt.SphereExact()), rho=angle + 0.3, steps=20)
    assert beyond == pytest.approx(rise(angle), rel=1e-3)
    # the second step leads back to the start; the end of the first is not forgotten
    twice = rise_of(Height(x, a, geoopt.SphereExact()), rho=angle + 0.3, steps=2)
    assert twice == pytest.approx(rise(angle + 0.3), rel=1e-12)


def test_that_the_radius_is_shared_by_the_product_of_all_parameters() -> None:
    a = normal(4, seed=1)
    model = nn.ModuleList([Height(nn.functional.normalize(normal(4, seed=s), dim=0), a, geoopt.SphereExact())
                           for s in (2, 3)])  # fmt: skip
    angles = [math.acos(float(h.x.detach() @ a / a.norm())) for h in model]
    slopes = [math.sin(angle) for angle in angles]  # slope of each function by its angle, divided by |a|
    shares = [0.4 * slope / math.hypot(*slopes) for slope in slopes]
    expected = sum(math.cos(t - s) - math.cos(t) for t, s in zip(angles, shares, strict=True)) * float(a.norm())
    estimate = sharpness(lambda inputs: model[0](inputs) + model[1](inputs), only, model.parameters(), NOTHING, 0.4)
    assert float(estimate) == pytest.approx(expected, rel=1e-12)


# -- averages ---------------------------------------------------------------------------------------------------------


def test_that_the_average_over_a_quadratic_is_its_quadratic_form_at_normal_directions() -> None:
    model = anisotropic()
    rho = 0.7
    estimate = sharpness(model, only, model.parameters(), NOTHING, rho, kind="average", probes=50, seed=generator(3))
    source = generator(3)
    directions = [torch.randn(6, dtype=DOUBLE, generator=source) for _ in range(50)]
    # a pair of opposite directions cancels the slope
    expected = torch.stack([rho**2 / 2 * v @ model.a @ v for v in directions])
    torch.testing.assert_close(estimate.samples, expected, rtol=1e-10, atol=1e-12)
    many = sharpness(model, only, model.parameters(), NOTHING, rho, kind="average", probes=400)
    low, high = many.interval(0.99)
    assert low <= rho**2 / 2 * float(model.a.trace()) <= high
    assert high - low < rho**2 / 2 * float(model.a.trace())
    assert many.products == 1 + 2 * 400


def test_that_the_average_on_manifolds_is_half_the_trace_of_the_hessian_for_small_radii() -> None:
    for manifold, shape in ((geoopt.PoincareBall(), (3,)), (geoopt.EuclideanStiefel(), (4, 2))):
        model, batch = probed(manifold, shape)
        arguments = (model, nn.MSELoss(), list(model.parameters()), batch)
        # the remainder is of fourth order in the radius, here relatively 1e-4
        low, high = sharpness(*arguments, 1e-2, kind="average", probes=400).interval(0.99)
        exact = 1e-4 / 2 * float(trace(RiemannianHessian(*arguments), method="exact"))
        assert low <= exact <= high and high - low < abs(exact)


# -- pieces and scales ------------------------------------------------------------------------------------------------


def test_that_single_examples_have_the_sharpness_of_a_regression() -> None:
    """(r + s |x|)^2 - r^2 at radius s is the most that a squared residual r can rise in the weights."""
    model = nn.Linear(4, 1, bias=False).double()
    x, y = normal(7, 4), normal(7, 1, seed=1)
    residuals = (model(x) - y).detach().abs().squeeze(1)
    expected = (residuals + 0.2 * x.norm(dim=1)) ** 2 - residuals**2
    arguments = (model, nn.MSELoss(), list(model.parameters()))
    for data in ((x, y), batches((x, y), 4, 3)):
        estimate = sharpness(*arguments, data, 0.2, micro_batch=1)
        torch.testing.assert_close(estimate.samples, expected, rtol=1e-10, atol=1e-12)
        assert float(estimate) == pytest.approx(float(expected.mean()), rel=1e-12)
        assert estimate.standard_error == pytest.approx(float(expected.std()) / 7**0.5, rel=1e-12)
        assert estimate.products == 21
    # pieces do not cross batches: 3, 1 and 3 examples, weighted by their numbers
    pieces = [float(sharpness(*arguments, piece, 0.2)) for piece in batches((x, y), 3, 1, 3)]
    weighted = sharpness(*arguments, batches((x, y), 4, 3), 0.2, micro_batch=3)
    torch.testing.assert_close(weighted.samples, torch.tensor(pieces, dtype=DOUBLE), rtol=1e-10, atol=1e-12)
    assert float(weighted) == pytest.approx((3 * pieces[0] + pieces[1] + 3 * pieces[2]) / 7, rel=1e-12)
    # examples that can disagree rise more one by one
    assert float(sharpness(*arguments, (x, y), 0.2, micro_batch=1)) > float(sharpness(*arguments, (x, y), 0.2))


def test_that_the_error_over_unequal_pieces_is_that_of_their_weighted_mean() -> None:
    # a mean of outputs rises by the radius times the mean input: by 1, 2 and 4 for pieces of 2, 2 and 1 examples
    model = nn.Linear(1, 1, bias=False).double()
    data = torch.tensor([[2.0], [2.0], [4.0], [4.0], [8.0]], dtype=DOUBLE), torch.zeros(5, 1)
    estimate = sharpness(model, lambda outputs, _: outputs.mean(), model.parameters(), data, 0.5, micro_batch=2)
    assert float(estimate) == pytest.approx((2 * 1 + 2 * 2 + 4) / 5, rel=1e-12)
    squares = (2 * (1 - 2)) ** 2 + (2 * (2 - 2)) ** 2 + (4 - 2) ** 2
    assert estimate.standard_error == pytest.approx((3 / 2 * squares) ** 0.5 / 5, rel=1e-12)


def test_that_adaptive_steps_are_those_of_kwon_and_others() -> None:
    model, batch = network(), examples()
    rho = 0.5
    loss, values = functional(model, nn.MSELoss(), batch)
    gradients = torch.autograd.functional.jacobian(loss, values)
    # e = rho T^2 g / |T g| with T = |w| (Kwon et al. 2021, eq. 7)
    norm = torch.cat([(w.abs() * g).flatten() for w, g in zip(values, gradients, strict=True)]).norm()
    moved = [w + rho * w**2 * g / norm for w, g in zip(values, gradients, strict=True)]
    expected = float(loss(*moved) - loss(*values))
    arguments = (model, nn.MSELoss(), list(model.parameters()), batch)
    assert float(sharpness(*arguments, rho, adaptive=True)) == pytest.approx(expected, rel=1e-10)
    plain = float(sharpness(*arguments, rho))
    # it does not depend on the relative scale of layers, unlike the plain sharpness
    with torch.no_grad():
        model[0].weight.mul_(10)
        model[0].bias.mul_(10)
    rescaled = nn.Sequential(model[0], Shrink(), *model[1:])
    arguments = (rescaled, *arguments[1:])
    assert float(sharpness(*arguments, rho, adaptive=True)) == pytest.approx(expected, rel=1e-10)
    assert float(sharpness(*arguments, rho)) != pytest.approx(plain, rel=1e-2)


class Shrink(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 10


def test_that_adaptive_averages_scale_directions_too() -> None:
    model = anisotropic()
    estimate = sharpness(
        model, only, model.parameters(), NOTHING, 0.3, kind="average", adaptive=True, probes=5, seed=generator(0)
    )
    source, scale = generator(0), model.w.detach().abs().diag()
    directions = [torch.randn(6, dtype=DOUBLE, generator=source) for _ in range(5)]
    expected = torch.stack([0.3**2 / 2 * v @ scale @ model.a @ scale @ v for v in directions])
    torch.testing.assert_close(estimate.samples, expected, rtol=1e-10, atol=1e-12)


# -- options ----------------------------------------------------------------------------------------------------------

BAD = [
    ({"rho": 0.0}, "rho must be positive and finite, got 0"),
    ({"rho": float("nan")}, "rho must be positive and finite, got nan"),
    ({"kind": "best"}, "kind must be 'worst' or 'average', got 'best'"),
    ({"steps": 0}, "steps must be at least 1, got 0"),
    ({"restarts": -1}, "restarts must be at least 0, got -1"),
    ({"kind": "average", "probes": 0}, "probes must be at least 1, got 0"),
    ({"micro_batch": 0}, "micro_batch must be at least 1"),
    ({"kind": "average", "micro_batch": 1}, "micro_batch must be at least 1, and is for kind='worst'"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str(options) for options, _ in BAD])
def test_that_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rise_of(anisotropic(), **options)


def test_that_adaptive_is_refused_on_a_manifold_by_name() -> None:
    model = mixed_network()
    with pytest.raises(ValueError, match=r"adaptive=True .*0\.weight \(shape \(5, 4\), Stiefel\(euclidean\)\)"):
        sharpness(model, nn.MSELoss(), model.parameters(), examples(), adaptive=True)


def test_that_a_manifold_without_second_order_steps_is_named_together_with_the_parameter() -> None:
    model, batch = probed(geoopt.BirkhoffPolytope(), (3, 3))
    for options in ({}, {"kind": "average"}):
        with pytest.raises(NotImplementedError, match=r"point \(shape \(3, 3\), Birkhoff.*has no"):
            sharpness(model, nn.MSELoss(), model.parameters(), batch, **options)  # type: ignore[arg-type]


def test_that_a_seed_fixes_the_result() -> None:
    model = mixed_network()
    arguments = (model, nn.MSELoss(), list(model.parameters()), examples())
    # the gradient is zero, so that only random starts rise
    stationary = Quadratic(torch.zeros(5, dtype=DOUBLE), torch.diag(torch.arange(5, dtype=DOUBLE)))
    for case, options in (
        (arguments, {"kind": "average", "probes": 5}),
        ((stationary, only, list(stationary.parameters()), NOTHING), {"restarts": 1, "rho": 0.3}),
    ):
        one, same, other = (sharpness(*case, seed=seed, **options) for seed in (1, 1, 2))  # type: ignore[arg-type]
        assert torch.equal(one.samples, same.samples) and not torch.equal(one.samples, other.samples)
