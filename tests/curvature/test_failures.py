"""That a failed measurement changes nothing, and its error says what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam.curvature import (
    RiemannianGaussNewton,
    RiemannianHessian,
    fisher_trace,
    gradient_norm,
    landscape,
    sharpness,
    spectral_density,
    top_eigenvalues,
    trace,
)
from tests.curvature.problems import DOUBLE, batches, examples, labelled, network, normal, snapshot

Measure = Callable[[Any, Any, Any, Any], Any]


def product(operator: Any) -> Measure:
    def measure(model: Any, loss_func: Any, params: Any, data: Any) -> Tensor:
        a = operator(model, loss_func, params, data)
        return a @ torch.ones(a.shape[0], dtype=DOUBLE)

    return measure


#: Measures that evaluate the loss, and whether they differentiate it.
MEASURES: dict[str, Measure] = {
    "RiemannianHessian": product(RiemannianHessian),
    "RiemannianGaussNewton": product(RiemannianGaussNewton),
    "trace": lambda *case: trace(RiemannianHessian(*case), 2),
    "gradient_norm": gradient_norm,
    "sharpness": sharpness,
}
each_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


def refused(
    measure: Measure,
    model: nn.Module,
    loss_func: Any,
    data: Any,
    error: type[Exception],
    message: str,
    params: Any = None,
) -> None:
    """Assert that a measurement is refused, and leaves weights and gradients as they were."""
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.5)
    before = snapshot(model)
    with pytest.raises(error, match=message):
        measure(model, loss_func, list(model.parameters()) if params is None else params, data)
    assert all(torch.equal(a, b) for a, b in zip(snapshot(model), before, strict=True))
    assert all(torch.equal(p.grad, torch.full_like(p, 0.5)) for p in model.parameters())


DATA = [pytest.param(examples(), id="batch"), pytest.param(batches(examples(), 7, 5), id="batches")]


@each_measure
@pytest.mark.parametrize("data", DATA)
def test_that_a_loss_without_a_graph_is_refused(measure: Measure, data: Any) -> None:
    def detached(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.detach() - targets).square().mean()

    message = "loss_func returned a loss without a graph; compute it from the parameters"
    refused(measure, network(), detached, data, ValueError, message)


def test_that_outputs_without_a_graph_are_refused_where_they_are_differentiated() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.net(inputs).detach()

    for measure in (MEASURES["RiemannianGaussNewton"], fisher_trace):
        message = "model_func returned an output without a graph"
        refused(measure, Detached(), nn.CrossEntropyLoss(), labelled(), ValueError, message)  # type: ignore[arg-type]


@each_measure
@pytest.mark.parametrize("data", DATA)
def test_that_a_parameter_outside_the_graph_is_named(measure: Measure, data: Any) -> None:
    model = network()
    model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=DOUBLE)))
    message = r"the loss does not depend on unused \(shape \(2,\), Euclidean\); leave it out"
    refused(measure, model, nn.MSELoss(), data, ValueError, message)
    foreign = [*network().parameters(), nn.Parameter(torch.ones(2, dtype=DOUBLE))]
    message = r"the loss does not depend on parameter 0 \(shape \(5, 4\)"
    refused(measure, network(), nn.MSELoss(), data, ValueError, message, params=foreign)


@each_measure
def test_that_inner_tensors_doubles_and_none_are_refused(measure: Measure) -> None:
    model = network()
    weight = model[0].weight
    message = r"entries 0 and 2 are the same tensor, of shape"
    refused(measure, model, nn.MSELoss(), examples(), ValueError, message, params=[weight, model[0].bias, weight])
    refused(measure, model, nn.MSELoss(), examples(), ValueError, "got a tensor", params=weight)
    refused(measure, model, nn.MSELoss(), examples(), ValueError, "entry 0 is no tensor but str", params=["0.weight"])
    message = r"parameter 0 .* must be a leaf"
    refused(measure, model, nn.MSELoss(), examples(), ValueError, message, params=[2 * model[0].weight])
    refused(measure, model, nn.MSELoss(), examples(), ValueError, "params is empty", params=[])
    model.requires_grad_(False)
    refused(measure, model, nn.MSELoss(), examples(), ValueError, "all of params are frozen")


@each_measure
def test_that_what_is_given_in_the_place_of_parameters_is_named(measure: Measure) -> None:
    """An iterable module yields its layers, and a mapping its keys."""
    model, of = network(), r"params must be an iterable of tensors, such as model\.parameters\(\), got "
    for params, got in (
        (model, "Sequential"),
        (nn.Linear(4, 5), "Linear"),
        (3, "int"),
        (model.state_dict(), "Ordered"),
    ):
        refused(measure, model, nn.MSELoss(), examples(), ValueError, of + got, params=params)
    message = r"all of params are frozen .*, the first of shape \(12, 4\); .* such as model\.parameters\(\)"
    refused(measure, model, nn.MSELoss(), examples(), ValueError, message, params=examples())


@each_measure
def test_that_swapped_arguments_are_named(measure: Measure) -> None:
    model = network()
    data = examples()

    def swapped(model_func: Any, loss_func: Any, message: str) -> None:
        before = snapshot(model)
        with pytest.raises(ValueError, match=message):
            measure(model_func, loss_func, model.parameters(), data)
        assert all(map(torch.equal, snapshot(model), before))

    swapped(model, model.parameters(), "loss_func must be a function of outputs and targets, or None .*, got generator")
    swapped(model, "mse", r"loss_func must be a function .*, got str")
    swapped(data, nn.MSELoss(), "model_func must be a model or a function of inputs, got tuple")
    swapped(nn.MSELoss(), model, "model_func must be a model, got the loss MSELoss; the loss comes second")


def test_that_a_list_of_parameters_that_is_a_module_is_taken() -> None:
    model = network()
    value = gradient_norm(model, nn.MSELoss(), nn.ParameterList(model.parameters()), examples())
    assert value == gradient_norm(model, nn.MSELoss(), model.parameters(), examples())


def test_that_frozen_parameters_are_left_out_and_names_may_be_given() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    rest = [p for p in model.parameters() if p is not model[0].weight]
    expected = RiemannianHessian(model, nn.MSELoss(), rest, examples())
    actual = RiemannianHessian(model, nn.MSELoss(), model.named_parameters(), examples())
    z = torch.ones(expected.shape[0], dtype=torch.float64)
    torch.testing.assert_close(actual @ z, expected @ z, rtol=0, atol=0)
    a_function = RiemannianHessian(lambda x: model(x), nn.MSELoss(), model.named_parameters(), examples())
    assert a_function.risk.names == actual.risk.names == ["0.bias", "2.weight", "2.bias"]


def test_that_products_that_are_not_finite_are_refused() -> None:
    class Cusp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return x + (self.w**2) ** 0.75  # finite value and gradient at zero, infinite second derivative

    model = Cusp()
    zeros = torch.zeros(2, 3, dtype=torch.float64)
    hessian = RiemannianHessian(model, lambda out, y: (out - y).sum(), model.parameters(), (zeros, zeros))
    with pytest.raises(rsam.NotFinite, match=r"(product with|gradient of) w \(shape \(3,\), Euclidean\) is not finite"):
        trace(hessian, method="exact")


@each_measure
@pytest.mark.parametrize("data", DATA)
def test_that_losses_that_are_no_scalar_are_refused(measure: Measure, data: Any) -> None:
    message = r"must return a scalar, not a tensor of shape \(\d+, 3\); use reduction='mean' or 'sum'"
    refused(measure, network(), nn.MSELoss(reduction="none"), data, ValueError, message)
    refused(measure, network(), lambda outputs, targets: 1.0, data, ValueError, "scalar tensor, not float")


@each_measure
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_that_losses_and_gradients_that_are_not_finite_are_refused(measure: Measure, bad: float) -> None:
    def infinite(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean() * bad

    refused(measure, network(), infinite, examples(), rsam.NotFinite, f"the loss is {bad}, which is not finite")

    class Cusp(nn.Module):
        """Finite loss with an infinite slope in one weight."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.zero = network(), nn.Parameter(torch.zeros(1, dtype=DOUBLE))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.net(inputs) + self.zero.sqrt()

    message = r"the gradient of zero \(shape \(1,\), Euclidean\) is not finite"
    refused(measure, Cusp(), nn.MSELoss(), examples(), rsam.NotFinite, message)


@each_measure
def test_that_empty_and_exhaustible_data_are_refused(measure: Measure) -> None:
    refused(measure, network(), nn.MSELoss(), [], ValueError, "data is empty: it yields no batch")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*examples(0)), batch_size=4)
    refused(measure, network(), nn.MSELoss(), loader, ValueError, "data is empty")

    def once() -> Iterator[Any]:
        yield examples()

    for iterator in (once(), iter([examples()]), zip(*[[x] for x in examples()], strict=True)):
        refused(measure, network(), nn.MSELoss(), iterator, ValueError, "gone through only once; pass a list")


@each_measure
def test_that_data_that_are_no_pairs_are_refused(measure: Measure) -> None:
    x, y = examples()
    for data, kind in (([x], "Tensor"), ([(x, y, y)], "tuple"), ([{x, y}], "set")):
        message = rf"data must yield pairs \(inputs, targets\) or mappings, not {kind}"
        refused(measure, network(), nn.MSELoss(), data, ValueError, message)
    refused(measure, network(), lambda f, y: f.mean(), [({}, None)], ValueError, "pass batch_size_fn")


def test_that_large_gradients_are_not_taken_for_infinite_ones() -> None:
    w = nn.Parameter(torch.ones(3))
    case = lambda x: w * x, lambda f, y: 1e25 * f.square().sum(), [w], (torch.ones(3), torch.ones(3))
    product = RiemannianHessian(*case) @ torch.ones(3)  # the square of the norm overflows in single precision
    torch.testing.assert_close(product, torch.full((3,), 2e25))
    assert gradient_norm(*case) == pytest.approx(2e25 * 3**0.5)


@pytest.mark.parametrize("operator", [RiemannianHessian, RiemannianGaussNewton])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex128])
def test_that_vectors_whose_dtype_cannot_hold_the_product_are_refused(operator: Any, dtype: torch.dtype) -> None:
    model = network()
    a = operator(model, nn.MSELoss(), model.parameters(), examples())
    v = torch.ones(a.shape[0], dtype=dtype)
    for give in (lambda: a @ v, lambda: a @ a.split(v), lambda: (2 * a) @ v, lambda: a.tangents(v)):
        with pytest.raises(ValueError, match=rf"real floating-point numbers, got {dtype}; .* to torch\.float64"):
            give()


@pytest.mark.parametrize("operator", [RiemannianHessian, RiemannianGaussNewton])
def test_that_bad_blocks_are_refused(operator: Any) -> None:
    model = network()
    for sizes in ([3], [5], [0, 4], [-1, 5], []):
        with pytest.raises(ValueError, match="block_sizes must be positive and sum to the 4 parameters"):
            operator(model, nn.MSELoss(), model.parameters(), examples(), block_sizes=sizes)


def test_that_parameters_of_several_dtypes_have_no_common_one() -> None:
    model = network()
    model[2].float()
    a = RiemannianHessian(
        lambda x: model[2](model[1](model[0](x)).float()), nn.MSELoss(), model.parameters(),
        tuple(t.double() if i == 0 else t.float() for i, t in enumerate(examples())),
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=r"several values of dtype: .*float32.*float64"):
        trace(a, 2)


# -- integers ---------------------------------------------------------------------------------------------------------


def case() -> Any:
    model = network()
    return model, nn.MSELoss(), [*model.parameters()], examples()


#: Arguments that are integers, and functions that take them.
INTEGERS: list[tuple[str, Callable[..., Any]]] = [
    ("k", lambda v: top_eigenvalues(RiemannianHessian(*case()), v)),
    ("max_products", lambda v: top_eigenvalues(RiemannianHessian(*case()), max_products=v)),
    ("probes", lambda v: trace(RiemannianHessian(*case()), v)),
    ("probes", lambda v: trace(RiemannianHessian(*case()), v, method="xtrace")),
    ("probes", lambda v: sharpness(*case(), kind="average", probes=v)),
    ("probes", lambda v: fisher_trace(*case(), v)),
    ("steps", lambda v: spectral_density(RiemannianHessian(*case()), v)),
    ("repeats", lambda v: spectral_density(RiemannianHessian(*case()), 5, repeats=v)),
    ("points", lambda v: spectral_density(RiemannianHessian(*case()), 5, points=v)),
    ("steps", lambda v: sharpness(*case(), steps=v)),
    ("restarts", lambda v: sharpness(*case(), restarts=v)),
    ("micro_batch", lambda v: sharpness(*case(), micro_batch=v)),
    ("steps", lambda v: landscape.plane(*case(), steps=(2, v))),
    ("levels", lambda v: landscape.plane(*case(), steps=3).plot(levels=v)),
    ("count", lambda v: landscape.random_directions(case()[2], v)),
    ("count", lambda v: landscape.trajectory_directions(network().named_parameters(), [network(1), network(2)], v)),
    ("each of block_sizes", lambda v: RiemannianHessian(*case(), block_sizes=[v, 2])),
    ("seed", lambda v: trace(RiemannianHessian(*case()), 2, seed=v)),
]


@pytest.mark.parametrize(("name", "call"), INTEGERS, ids=[f"{name} {i}" for i, (name, _) in enumerate(INTEGERS)])
def test_that_integers_may_be_those_of_numpy_and_tensors_and_nothing_else(name: str, call: Any) -> None:
    for value in (2.0, True):
        with pytest.raises(ValueError, match=f"^{name} must be an integer, got {value}$"):
            call(value)
    for value in (np.int64(2), torch.tensor(2)):
        call(value)


# -- requirements of single measures ----------------------------------------------------------------------------------


def test_that_the_fisher_trace_refuses_losses_that_are_no_likelihood() -> None:
    model, params = network(), list(network().parameters())
    for loss_func, message in (
        (nn.L1Loss(), "must be one of nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.MSELoss, got L1Loss"),
        (nn.functional.mse_loss, "got function"),
        (nn.CrossEntropyLoss(torch.ones(3)), "loss_func has weights"),
        (nn.BCEWithLogitsLoss(pos_weight=torch.ones(3)), "loss_func has weights"),
        (nn.MSELoss(reduction="none"), "reduction='mean' or 'sum', got 'none'"),
    ):
        with pytest.raises(ValueError, match=message):
            fisher_trace(model, loss_func, params, examples())  # type: ignore[arg-type]
    for options, message in (
        ({"probes": 0}, "probes must be at least 1, got 0"),
        ({"rtol": 0.0}, "rtol must be positive, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            fisher_trace(model, nn.MSELoss(), params, examples(), **options)  # type: ignore[arg-type]


def test_that_the_fisher_trace_refuses_complex_outputs_and_takes_their_parts() -> None:
    weight = nn.Parameter(normal(4, 3, dtype=torch.complex128))
    x, y = examples()

    def outputs(x: Tensor) -> Tensor:
        return x.to(weight.dtype) @ weight

    with pytest.raises(ValueError, match=r"must return real outputs, got torch\.complex128; .* torch\.view_as_real"):
        fisher_trace(outputs, nn.MSELoss(), [weight], (x, y))
    # the real and the imaginary part of each of 36 outputs have a row of the Jacobian of norm |x|
    estimate = fisher_trace(lambda x: torch.view_as_real(outputs(x)), nn.MSELoss(), [weight], (x, y), 1000)
    expected = 2 / (2 * 36) * 2 * 3 * float(x.square().sum())
    assert abs(float(estimate) - expected) < 4 * estimate.standard_error < 0.2 * expected


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(inputs), self.net(-inputs)


def test_that_outputs_need_only_be_tensors_where_they_are_differentiated() -> None:
    message = "model_func must return a tensor, not tuple"
    for measure in (MEASURES["RiemannianGaussNewton"], fisher_trace):
        refused(measure, Pair(), nn.MSELoss(), examples(), ValueError, message)  # type: ignore[arg-type]
    model = Pair()

    def both(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        return (outputs[0] - outputs[1] - targets).square().mean()

    assert float(trace(RiemannianHessian(model, both, model.parameters(), examples()), method="exact")) > 0


def test_that_micro_batches_need_tensors_of_equal_length_to_split() -> None:
    def measure(model: Any, loss_func: Any, params: Any, data: Any) -> Any:
        return sharpness(model, loss_func, params, data, micro_batch=2)

    x, y = examples()
    for inputs, message in (
        ({"x": x, "name": "first"}, "splits inputs and targets, which must be tensors"),
        ({"x": x, "scale": torch.tensor(1.0)}, "splits inputs and targets, which must be tensors"),
        ({"x": x, "lengths": torch.ones(3)}, r"tensors of equal length, but a batch has the lengths \[3, 12\]"),
    ):
        refused(measure, network(), nn.MSELoss(), [(inputs, y)], ValueError, message)
    refused(measure, network(), nn.MSELoss(), [], ValueError, "data is empty")


def test_that_a_generator_on_another_device_is_refused() -> None:
    model = network()
    hessian = RiemannianHessian(model, nn.MSELoss(), model.parameters(), examples())

    class Elsewhere(torch.Generator):
        device = torch.device("cuda")  # type: ignore[assignment]

    with pytest.raises(ValueError, match="the generator is on cuda, but the operator is on cpu"):
        trace(hessian, 2, seed=Elsewhere())
