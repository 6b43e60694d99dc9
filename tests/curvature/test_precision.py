"""That results in single and half precision are those in double precision, up to rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import geoopt
import pytest
import torch
from torch import nn

import rsam
from rsam.curvature import (
    RiemannianGaussNewton,
    RiemannianHessian,
    fisher_trace,
    gradient_norm,
    landscape,
    layer_traces,
    sharpness,
    spectral_density,
    top_eigenvalues,
    trace,
)
from tests.curvature.problems import dense, labelled, mixed_network, network

CE = nn.CrossEntropyLoss()

# the weights of half precision are off their manifolds in double precision
pytestmark = pytest.mark.filterwarnings("ignore:.*off its manifold")


def rounded(model: nn.Module, dtype: torch.dtype) -> tuple[nn.Module, Any, nn.Module, Any]:
    """Return the model and data in this dtype, and in double precision with the same rounded numbers."""
    low = copy.deepcopy(model).to(dtype)
    x, y = labelled()
    x = x.to(dtype)
    return low, (x, y), copy.deepcopy(low).double(), (x.double(), y)


#: Measures without a random part, or with random signs, which are the same in every dtype.
NUMBERS: dict[str, Callable[[nn.Module, Any], float]] = {
    "trace": lambda m, d: float(trace(RiemannianHessian(m, CE, m.parameters(), d), method="exact")),
    "trace of probes": lambda m, d: float(trace(RiemannianHessian(m, CE, m.parameters(), d), 30)),
    "trace by xtrace": lambda m, d: float(trace(RiemannianHessian(m, CE, m.parameters(), d), 20, method="xtrace")),
    "trace of a layer": lambda m, d: float(layer_traces(RiemannianHessian(m, CE, m.parameters(), d))["2.bias"]),
    "gauss-newton": lambda m, d: float(trace(RiemannianGaussNewton(m, CE, m.parameters(), d), method="exact")),
    "fisher_trace": lambda m, d: float(fisher_trace(m, CE, m.parameters(), d, 30)),
    "gradient_norm": lambda m, d: gradient_norm(m, CE, m.parameters(), d),
    "sharpness": lambda m, d: float(sharpness(m, CE, m.parameters(), d, 0.5, steps=2)),
    "top eigenvalue": lambda m, d: float(top_eigenvalues(RiemannianHessian(m, CE, m.parameters(), d)).values[0]),
    "lower end of the spectrum": lambda m, d: float(
        spectral_density(RiemannianHessian(m, CE, m.parameters(), d), 15, repeats=1).grid[0]
    ),
}
# Tolerances in units of rounding: about a hundred operations round by half a unit each, and the errors add up as
# random walks do, here to at most one. A rise of the loss is a difference of numbers five times as large.
FACTOR = 4
FACTORS = {"sharpness": 5 * FACTOR}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("make", [network, mixed_network])
def test_that_every_number_is_that_of_double_precision_up_to_rounding(
    make: Callable[[], nn.Module], name: str, dtype: torch.dtype
) -> None:
    low, low_data, high, high_data = rounded(make(), dtype)
    expected, actual = NUMBERS[name](high, high_data), NUMBERS[name](low, low_data)
    assert actual == pytest.approx(expected, rel=FACTORS.get(name, FACTOR) * torch.finfo(dtype).eps)


#: Measures that are homogeneous in the loss.
HOMOGENEOUS: dict[str, Callable[[nn.Module, Any, Any], float]] = {
    "trace of probes": lambda m, loss, d: float(trace(RiemannianHessian(m, loss, m.parameters(), d), 30)),
    "trace by xtrace": lambda m, loss, d: float(
        trace(RiemannianGaussNewton(m, loss, m.parameters(), d), 20, method="xtrace")
    ),
    "gradient_norm": lambda m, loss, d: gradient_norm(m, loss, m.parameters(), d),
    "sharpness": lambda m, loss, d: float(sharpness(m, loss, m.parameters(), d, 0.5, steps=2)),
    "steepest direction": lambda m, loss, d: float(
        landscape.line(m, loss, m.parameters(), d, "gradient", steps=2).loss[1]
    ),
    "spectrum": lambda m, loss, d: float(
        spectral_density(RiemannianHessian(m, loss, m.parameters(), d), 15, repeats=1).density.amax().reciprocal()
    ),
}


@pytest.mark.parametrize("exponent", [-80, 80])
@pytest.mark.parametrize("name", HOMOGENEOUS)
@pytest.mark.parametrize("make", [network, mixed_network])
def test_that_a_loss_may_be_so_small_or_large_that_squares_are_not_numbers(
    make: Callable[[], nn.Module], name: str, exponent: int
) -> None:
    """A power of two commutes with rounding; 2^±160 is not in the range of single precision, 2^±80 is."""
    model, data, _, _ = rounded(make(), torch.float32)
    measure = HOMOGENEOUS[name]
    scaled = measure(model, lambda outputs, targets: CE(outputs, targets) * 2.0**exponent, data)
    assert scaled * 2.0**-exponent == pytest.approx(measure(model, CE, data), rel=1e-5)


@pytest.mark.parametrize("exponent", [-80, 80])
def test_that_outputs_may_be_so_small_or_large_that_squares_are_not_numbers(exponent: int) -> None:
    model, (x, _), _, _ = rounded(network(), torch.float32)
    plain, scaled = (
        fisher_trace(lambda x, s=s: s * model(x), nn.MSELoss(), model.parameters(), (x, model(x)), 5)
        for s in (1.0, 2.0**exponent)
    )
    assert float(scaled) * 2.0 ** (-2 * exponent) == pytest.approx(float(plain), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("operator", [RiemannianHessian, RiemannianGaussNewton])
def test_that_products_are_those_of_double_precision_in_the_dtype_of_the_vector(
    operator: Any, dtype: torch.dtype
) -> None:
    low, low_data, high, high_data = rounded(mixed_network(), dtype)
    ours, expected = operator(low, CE, low.parameters(), low_data), operator(high, CE, high.parameters(), high_data)
    assert ours.dtype == torch.float32  # dtype of coordinates: torch has no factorisations in half precision
    matrix = dense(expected)
    error = (dense(ours).double() - matrix).norm()
    assert float(error) <= FACTOR * torch.finfo(dtype).eps * float(matrix.norm())
    for given in (torch.bfloat16, torch.float32, torch.float64):
        v = torch.ones(ours.shape[0], dtype=given)
        assert (ours @ v).dtype == given
        assert [t.dtype for t in ours.tangents(v)] == [dtype] * 4


def test_that_many_batches_are_summed_in_single_precision() -> None:
    """In bfloat16 a sum of equal terms stops growing after 256 of them."""
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    x, y = torch.ones(1, 1, dtype=torch.bfloat16), torch.zeros(1, 1, dtype=torch.bfloat16)

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).square().mean()  # nn.MSELoss has no bfloat16 on torch 2.4

    hessian = RiemannianHessian(model, loss, model.parameters(), [(x, y)] * 512)
    assert float(hessian @ torch.ones(1)) == 2
    expected = 2 * abs(float(model.weight.detach()))
    assert gradient_norm(model, loss, model.parameters(), [(x, y)] * 512) == pytest.approx(expected, rel=1e-2)


def test_that_layers_of_different_precision_are_measured_together() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(4, 5).bfloat16(), nn.LayerNorm(5), nn.Linear(5, 3).bfloat16()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm(self.first(x).float()).to(self.last.weight.dtype))

    model = Mixed()
    x, y = labelled()
    low = trace(RiemannianHessian(model, CE, model.parameters(), (x.bfloat16(), y)), method="exact")

    class High(Mixed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm(self.first(x)))

    high = High()
    high.load_state_dict(model.state_dict())
    high.double()
    expected = trace(RiemannianHessian(high, CE, high.parameters(), (x.bfloat16().double(), y)), method="exact")
    assert float(low) == pytest.approx(float(expected), rel=FACTOR * torch.finfo(torch.bfloat16).eps)


def test_that_hyperbolic_and_positive_definite_points_work_in_single_precision() -> None:
    for manifold in (geoopt.PoincareBall(), geoopt.Lorentz(), geoopt.SymmetricPositiveDefinite()):
        model = rsam.nn.constrain(nn.Linear(3, 3).double(), manifold)
        with torch.no_grad():
            model.weight.copy_(rsam.geometry.geometry_of(manifold).project_point(model.weight * 0.3))
        x, y = labelled()
        results = []
        for dtype in (torch.float32, torch.float64):
            one = copy.deepcopy(model).to(dtype)
            hessian = RiemannianHessian(one, CE, one.parameters(), (x[:, :3].to(dtype), y))
            results.append(float(trace(hessian, method="exact")))
        assert results[0] == pytest.approx(results[1], rel=1e-4)  # rounding, stretched a hundredfold


DIFFERENTIATED: dict[str, Callable[..., Any]] = {
    "hessian": lambda *case: trace(RiemannianHessian(*case), 2),
    "gauss-newton": lambda *case: trace(RiemannianGaussNewton(*case), 2),
    "fisher": lambda *case: fisher_trace(*case, 2),
    "gradient": gradient_norm,
    "worst": sharpness,
    "slope": lambda *case: landscape.line(*case, steps=3, gradients=True),
    "direction": lambda *case: landscape.line(*case, "gradient", steps=3),
}


@pytest.mark.skipif(
    not hasattr(torch.ones((), requires_grad=True).clone().grad_fn, "_input_metadata"),
    reason="torch 2.4 does not tell the dtypes in a graph",
)
@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_that_an_autocast_to_float16_within_the_model_or_the_loss_is_refused(name: str) -> None:
    """Derivatives vanish in it without an error."""
    model, (x, y) = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), labelled()
    x = x.float()

    def cast(function: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
        def inside(*args: Any) -> torch.Tensor:
            with torch.autocast("cpu", dtype):
                return function(*args)

        return inside

    class Scaled(nn.CrossEntropyLoss):
        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return super().forward(1e-8 * outputs.float(), targets)

    class Halved(nn.CrossEntropyLoss):
        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return super().forward((outputs @ torch.eye(3)).float(), targets)

    half = cast(model, torch.float16)
    gradients = torch.autograd.grad(Scaled()(half(x), y), [*model.parameters()])
    assert not any(g.any() for g in gradients)  # why
    measure, params = DIFFERENTIATED[name], [*model.parameters()]
    says = "float16 of a part of the loss; use an autocast to bfloat16 or none"
    with pytest.raises(ValueError, match=says):
        measure(half, nn.CrossEntropyLoss(), params, (x, y))
    if name != "fisher":  # which does not evaluate the loss
        with pytest.raises(ValueError, match=says):
            measure(model, cast(Halved(), torch.float16), params, (x, y))
    measure(cast(model, torch.bfloat16), nn.CrossEntropyLoss(), params, (x, y))
