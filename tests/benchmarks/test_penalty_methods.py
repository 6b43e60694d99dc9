"""That the objectives of penalised methods are those that their names say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.methods import METHODS
from tests.benchmarks.training_steps import EXACT, RUN, Bowl, run_of, steps


def objective_of(name: str, start: Tensor, loss: Callable[[Tensor], Tensor], **options: float) -> tuple[Tensor, Tensor]:
    """Return value and gradient of a penalised method's objective at a point."""
    model = nn.Module()
    model.point = nn.Parameter(start.clone())
    value = METHODS[name].objective(model, replace(RUN, method=name, **options))(lambda: loss(model.point))
    value.backward()
    return value.detach(), model.point.grad


START = torch.tensor([0.7, -1.1, 0.4, 0.9], dtype=torch.float64)


def test_that_the_gradient_norm_is_penalised() -> None:
    matrix, offset = Bowl.MATRIX, torch.tensor([0.3, 0.1, -0.5, 0.2], dtype=torch.float64)
    slope = matrix @ START - offset
    value, gradient = objective_of("gradient_norm", START, lambda x: x @ matrix @ x / 2 - offset @ x, penalty=0.25)
    expected = START @ matrix @ START / 2 - offset @ START + 0.25 * slope.norm()
    torch.testing.assert_close(value, expected, **EXACT)
    # the difference of a linear gradient is exact up to rounding, 2e-16 / (1.5e-8 times the size of START)
    torch.testing.assert_close(gradient, slope + 0.25 * matrix @ slope / slope.norm(), rtol=0, atol=1e-6)


def test_that_the_trace_of_a_quadratic_loss_has_no_gradient() -> None:
    diagonal = torch.tensor([3.0, 1.0, 2.0, 0.5], dtype=torch.float64)
    value, gradient = objective_of("hessian_trace", START, lambda x: (diagonal * x * x).sum() / 2, penalty=0.25)
    # signs have squares of 1, so that one probe gives the trace of a diagonal matrix exactly; second differences lose
    # half of the digits
    torch.testing.assert_close(value, (diagonal * START**2).sum() / 2 + 0.25 * 6.5, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, diagonal * START, rtol=0, atol=1e-6)


def test_that_the_trace_of_a_quartic_loss_is_penalised() -> None:
    value, gradient = objective_of("hessian_trace", START, lambda x: (x**4).sum() / 12, penalty=0.25)
    # the Hessian is diag(x^2); differences have errors of the squared step, about 1e-8, and of rounding as above
    torch.testing.assert_close(value, (START**4).sum() / 12 + 0.25 * (START**2).sum(), rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, START**3 / 3 + 0.25 * 2 * START, rtol=0, atol=1e-6)


def test_that_a_negative_trace_is_left_alone() -> None:
    value, gradient = objective_of("hessian_trace", START, lambda x: -(x**4).sum() / 12, penalty=0.25)
    torch.testing.assert_close(value, -(START**4).sum() / 12, **EXACT)
    torch.testing.assert_close(gradient, -(START**3) / 3, **EXACT)


def test_that_probes_of_the_trace_follow_the_seed() -> None:
    def value(seed: int) -> float:
        return float(objective_of("hessian_trace", START, lambda x: x @ Bowl.MATRIX @ x / 2, penalty=1.0, seed=seed)[0])

    values = [value(seed) for seed in range(8)]
    assert values == [value(seed) for seed in range(8)]
    # there are eight probes up to sign; all seeds draw the same one with a chance of 8^-7
    assert len({round(v, 6) for v in values}) > 1


@pytest.mark.parametrize("name", ["gradient_norm", "hessian_trace"])
def test_that_a_penalty_without_weight_is_sgd(name) -> None:
    expected, _ = steps(run_of("sgd"), 4)
    actual, passes = steps(replace(run_of(name), penalty=0.0, weight_decay=5e-4), 4)
    assert passes == 4
    for mine, reference in zip(actual.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(mine, reference)
    weighed, _ = steps(replace(run_of(name), penalty=0.1, weight_decay=5e-4), 4)
    assert not torch.equal(next(weighed.parameters()), next(expected.parameters()))
