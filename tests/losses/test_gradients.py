"""That every gradient is the derivative of its value, for fixed probes."""

from __future__ import annotations

import pytest
import torch

import rsam
from rsam.losses import FisherTrace, GradientNorm, HessianTrace, Sharpness
from tests.losses.problems import MANIFOLDS, PENALTIES, closure_for, derivative, on

# By name: step of the central difference, and tolerance. For exact gradients, and those of the three-point
# difference, the error is the squared step, and rounding divided by the step. The other two gradients by differences
# are forward differences of length 1e-6, with errors of 1e-6 and 1e-16/1e-6.
STEPS = dict.fromkeys(PENALTIES, (1e-4, 1e-6))
STEPS["gradient_norm_difference"] = STEPS["fisher_trace_difference"] = (1e-4, 1e-4)
OPTIONS = {
    "gradient_norm_difference": {"step": 1e-6},
    "fisher_trace_difference": {"step": 1e-6, "probes": 2},
    "fisher_trace": {"probes": 2},
    "hessian_trace": {"probes": 2},
    "hessian_trace_difference": {"step": 0.05, "probes": 2},
    "sharpness": {"probes": 2},
}


def make(name, params, **options):
    return PENALTIES[name](params, **OPTIONS.get(name, {}), **options)


@pytest.mark.parametrize("manifold", MANIFOLDS)
@pytest.mark.parametrize("name", PENALTIES)
def test_gradient_is_that_of_the_value(name, manifold) -> None:
    problem = on(manifold)
    space = rsam.geometry.Product(problem.points)
    tangents = space.random_tangent(problem.points, generator=torch.Generator().manual_seed(1))

    def value():  # the penalty is made anew each time, and draws the same probes
        penalty = make(name, problem.points, weight=0.7)
        return penalty(closure_for(penalty, problem))

    gradient = torch.autograd.grad(value(), problem.points)
    actual = rsam.geometry.pairing(gradient, tangents).item()
    step, tolerance = STEPS[name]
    assert actual == pytest.approx(derivative(value, problem.points, tangents, step), rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("manifold", ["plain", "sphere", "ball"])
@pytest.mark.parametrize("name", PENALTIES)
def test_objective_is_loss_plus_penalty(name, manifold) -> None:
    problem = on(manifold)
    penalty, again = (make(name, problem.points, weight=0.7) for _ in range(2))
    summed = problem.loss() + penalty(closure_for(penalty, problem))
    shared = again.objective(closure_for(again, problem, objective=True))
    torch.testing.assert_close(shared, summed)
    expected, actual = (torch.autograd.grad(total, problem.points) for total in (summed, shared))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", ["gradient_norm", "hessian_trace", "fisher_trace"])
def test_a_tensor_at_hand_gives_the_same(name) -> None:
    problem = on("sphere")
    penalty, again = (make(name, problem.points) for _ in range(2))
    closure = closure_for(penalty, problem)
    assert penalty(closure()).item() == again(closure).item()


@pytest.mark.parametrize(
    ("exact", "difference"),
    [
        (lambda p: GradientNorm(p), lambda p: GradientNorm(p, method="difference")),
        (lambda p: GradientNorm(p, p=2), lambda p: GradientNorm(p, p=2, method="difference")),
        (lambda p: HessianTrace(p), lambda p: HessianTrace(p, method="difference")),
        (lambda p: FisherTrace(p), lambda p: FisherTrace(p, method="difference")),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_default_steps_bring_differences_near_the_exact_form(exact, difference, dtype) -> None:
    problem = on("stiefel")
    for p in problem.points:
        p.data = p.data.to(dtype)
    problem.mixing = [m.to(dtype) for m in problem.mixing]
    space = rsam.geometry.Product(problem.points)
    values, tangents = [], []
    for make_penalty in (exact, difference):
        penalty = make_penalty(problem.points)
        value = penalty(closure_for(penalty, problem))
        values.append(value.item())
        # raised, since the normal part of a covector has no meaning, and differs
        tangents.append(space.raise_index(problem.points, torch.autograd.grad(value, problem.points)))
    # both errors are about the root of the rounding error, times constants of the problem
    tolerance = 100 * torch.finfo(dtype).eps ** 0.5
    assert values[1] == pytest.approx(values[0], rel=tolerance)
    for a, b in zip(*tangents, strict=True):
        torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("manifold", MANIFOLDS)
@pytest.mark.parametrize("exact", ["gradient_norm", "gradient_norm_square", "hessian_trace", "fisher_trace"])
def test_differences_at_points_with_the_rounding_of_single_precision(exact, manifold) -> None:
    """They are off their manifolds by more than the steps in double precision, as after ``model.double()``."""
    problem = on(manifold)
    for p in problem.points:
        p.data = p.data.float().double()
    space = rsam.geometry.Product(problem.points)
    values, tangents = [], []
    for name in (exact, f"{exact}_difference"):
        known = {"gradient_norm_square_difference": lambda p: GradientNorm(p, p=2, method="difference"), **PENALTIES}
        penalty = known[name](problem.points)
        value = penalty(closure_for(penalty, problem))
        values.append(value.item())
        tangents.append(space.raise_index(problem.points, torch.autograd.grad(value, problem.points)))
    # the distance from the manifold is 1e-7, and so is the error of the difference, times constants of the problem
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    for a, b in zip(*tangents, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gradient_norm_difference", "fisher_trace_difference"])
def test_differences_have_no_huge_normal_part(name) -> None:
    """An optimizer would project a normal part away, but clipping by norm would count it."""
    problem = on("sphere")
    penalty = PENALTIES[name](problem.points)
    gradient = torch.autograd.grad(penalty(closure_for(penalty, problem)), problem.points)
    tangent = rsam.geometry.Product(problem.points).raise_index(problem.points, gradient)
    for g, t in zip(gradient, tangent, strict=True):
        assert g.norm() < 10 * t.norm()


def test_sharpness_tends_to_the_trace() -> None:
    problem = on("spd")
    rho = 1e-3
    sharpness = Sharpness(problem.points, rho, distribution="rademacher")(problem.loss)
    trace = HessianTrace(problem.points)(problem.loss)
    # the next term of the series is rho^4
    assert sharpness.item() == pytest.approx(rho**2 / 2 * trace.item(), rel=1e-4)
