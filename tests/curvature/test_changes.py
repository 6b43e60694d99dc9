"""That operators follow changes of model, loss and data, and evaluate these once per call of an estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam.curvature import (
    RiemannianGaussNewton,
    RiemannianHessian,
    layer_traces,
    sharpness,
    spectral_density,
    top_eigenvalues,
    trace,
)
from tests.curvature.problems import (
    Breaks,
    a_product,
    batches,
    gauss_newton,
    hessian,
    labelled,
    model_with_buffers,
    normal,
)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model, self.calls = model_with_buffers(), 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.model(inputs)


def test_that_products_evaluate_anew_unless_graphs_are_kept() -> None:
    model = Counting()
    for data, count in ((labelled(), 1), (batches(labelled(), 6, 6), 2)):
        a = RiemannianHessian(model, nn.CrossEntropyLoss(), model.parameters(), data)
        model.calls = 0
        fresh = [a_product(a) for _ in range(3)]
        assert model.calls == 3 * count
        for _ in range(2):  # a second context starts anew
            model.calls = 0
            with a.keeping_graphs(), a.keeping_graphs():
                kept = [a_product(a) for _ in range(3)]
            assert model.calls == count
            assert all(torch.equal(one, other) for one, other in zip(kept, fresh, strict=True))


ESTIMATES: dict[str, Callable[[Any], Any]] = {
    "trace": lambda a: trace(a, 24),
    "trace exact": lambda a: trace(a, method="exact"),
    "trace xtrace": lambda a: trace(a, 4, method="xtrace"),
    "layer_traces": lambda a: layer_traces(a, 24),
    "top_eigenvalues": lambda a: top_eigenvalues(a, rtol=0.1),
    "top_eigenvalues dense": lambda a: top_eigenvalues(a, k=30),
    "spectral_density": lambda a: spectral_density(a, 4, repeats=2),
}


@pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES)
def test_that_a_call_of_an_estimator_evaluates_each_batch_once(estimate: Callable[[Any], Any]) -> None:
    model, loss_func = Counting(), nn.CrossEntropyLoss()
    one = hessian(model, loss_func, labelled())
    difference = one - 2.0 * gauss_newton(model, loss_func, labelled())
    pieces = batches(labelled(), 6, 6)
    both = RiemannianHessian(model, loss_func, model.parameters(), pieces, keep_graphs=True)
    for operator, calls in ((one, 1), (difference, 2), (both, 2)):
        for _ in range(2):
            model.calls = 0
            estimate(operator)
            assert model.calls == calls
    model.calls = 0
    estimate(hessian(model, loss_func, pieces))
    assert model.calls > 2  # the graphs of a loader are not kept, since they may not fit in memory
    model.calls = 0
    estimate(RiemannianHessian(model, loss_func, model.parameters(), labelled(), keep_graphs=False))
    assert model.calls > 1


class Told(nn.Module):
    """Model that depends on attributes of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.model = model_with_buffers()
        self.power, self.scales, self.options = 1, [1.0], {"shift": 0.0}
        self.function = torch.tanh

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        outputs = self.function(self.model(inputs["x"])) ** self.power
        return self.scales[0] * outputs.square() + self.options["shift"] * outputs


class Case:
    """Model, loss and batch, all of which can be changed."""

    def __init__(self) -> None:
        # with class weights the Gauss-Newton matrix depends on the labels too
        self.told, self.loss_func = Told(), nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
        x, self.labels = labelled()
        self.inputs = {"x": x}
        self.batches = [(self.inputs, self.labels), ({"x": normal(5, 4)}, torch.arange(5) % 3)]

    @property
    def layers(self) -> nn.Module:
        return self.told.model

    def operator(self, kind: Any) -> Any:
        return kind(self.told, self.loss_func, list(self.told.parameters()), self.batches, keep_graphs=True)


def _step(case: Case) -> None:
    for p in case.told.parameters():
        p.grad = torch.ones_like(p)
    rsam.optim.RiemannianSGD(case.told.parameters(), lr=0.1).step()


def _hook(case: Case) -> None:
    case.layers[2].register_forward_hook(lambda module, args, output: 2 * output)


def _assign(target: Callable[[Case], Any], name: str, value: Any) -> Callable[[Case], None]:
    return lambda case: setattr(target(case), name, value)


CHANGES: dict[str, Callable[[Case], Any]] = {
    "an optimizer's step": _step,
    "weights in place": lambda c: nn.init.ones_(c.layers[5].weight),
    "weights by data": lambda c: c.layers[5].weight.data.mul_(1.5),
    "weights by new data": _assign(lambda c: c.layers[5].weight, "data", torch.ones(3, 5, dtype=torch.float64)),
    "weights loaded": lambda c: c.layers[5].load_state_dict({k: 2 * v for k, v in c.layers[5].state_dict().items()}),
    "a buffer": lambda c: (c.layers.eval(), c.layers[1].running_var.mul_(1.5)),
    "a mode": lambda c: c.layers[3].eval(),
    "a float": _assign(lambda c: c.layers[3], "p", 0.1),
    "an int of the model": _assign(lambda c: c.told, "power", 3),
    "an int of the loss": _assign(lambda c: c.loss_func, "ignore_index", 0),
    "a list": lambda c: c.told.scales.__setitem__(0, 2.0),
    "a dict": lambda c: c.told.options.update(shift=0.5),
    "a function": _assign(lambda c: c.told, "function", torch.sin),
    "a module": lambda c: c.layers.__setitem__(2, nn.Sigmoid()),
    "a hook": _hook,
    "inputs replaced": lambda c: c.inputs.update(x=2 * c.inputs["x"]),
    "inputs by numpy": lambda c: c.inputs["x"].numpy().__imul__(2),
    "inputs by data": lambda c: c.inputs["x"].data.mul_(2),
    "targets in place": lambda c: c.labels.zero_(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("kind", [RiemannianHessian, RiemannianGaussNewton])
def test_that_an_operator_follows_every_change(kind: Any, change: Callable[[Case], Any]) -> None:
    case = Case()
    a = case.operator(kind)
    before = a_product(a), float(trace(a, 2))
    change(case)
    after = a_product(a), float(trace(a, 2))
    fresh = case.operator(kind)
    assert torch.equal(after[0], a_product(fresh)) and after[1] == float(trace(fresh, 2))
    assert not torch.allclose(after[0], before[0]) and after[1] != pytest.approx(before[1], rel=1e-6)


def test_that_an_operator_follows_a_batch_that_is_a_list() -> None:
    model, (x, y) = model_with_buffers(), labelled()
    batch = [x, y]
    a = hessian(model, nn.CrossEntropyLoss(), batch)
    before = a_product(a)
    batch[0] = 2 * x
    after = a_product(a)
    assert torch.equal(after, a_product(hessian(model, nn.CrossEntropyLoss(), batch)))
    assert not torch.allclose(after, before)


def test_that_an_operator_follows_autocast() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = labelled()
    a = hessian(model, nn.CrossEntropyLoss(), (x.float(), y))
    full = a_product(a)
    with torch.autocast("cpu", torch.bfloat16):
        half = a_product(a)
    # bfloat16 has 8 bits; the two graphs differ, but the function is the same
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1 * float(full.abs().max()))
    assert torch.equal(a_product(a), full)


def test_that_derivatives_of_small_losses_are_refused_in_half_precision_where_they_would_vanish() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = labelled()
    a = hessian(
        model, lambda outputs, targets: 1e-8 * nn.functional.cross_entropy(outputs.float(), targets), (x.float(), y)
    )
    full = a_product(a)
    with torch.autocast("cpu", torch.float16):
        outputs = 1e-8 * nn.functional.cross_entropy(model(x.float()).float(), y)
        assert not any(g.any() for g in torch.autograd.grad(outputs, [*model.parameters()]))  # why
        with pytest.raises(
            ValueError, match=r"vanish .* in the float16 of the autocast around this call; use bfloat16 or no autocast"
        ):
            a_product(a)
        assert a.risk.value() > 0  # takes no derivative
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(a_product(a), full, rtol=0.1, atol=0.1 * float(full.abs().max()))
    a = hessian(model.half(), nn.CrossEntropyLoss(), (x.half(), y))
    with pytest.raises(ValueError, match=r"in the float16 of 0\.weight .*; convert the model to bfloat16 or float32"):
        a_product(a)
    assert a.risk.value() > 0


def test_that_weights_written_to_while_graphs_are_kept_are_refused_by_name() -> None:
    case = Case()
    a = case.operator(RiemannianHessian)
    for change in ("weights in place", "weights by new data", "weights loaded"):
        with a.keeping_graphs(), pytest.raises(RuntimeError, match=r"model\.5\.weight .* written to while graphs"):
            a_product(a)
            CHANGES[change](case)
            a_product(a)
        assert torch.equal(a_product(a), a_product(case.operator(RiemannianHessian)))


def test_that_kept_graphs_survive_what_only_looks_at_moved_weights() -> None:
    model = Counting()
    a = hessian(model, nn.CrossEntropyLoss(), labelled())
    with a.keeping_graphs():
        before = a_product(a)
        sharpness(model, nn.CrossEntropyLoss(), model.parameters(), labelled(), steps=2)
        model.calls = 0
        assert torch.equal(a_product(a), before) and model.calls == 0


def test_that_a_failure_while_graphs_are_kept_leaves_none_behind() -> None:
    model, loss_func = model_with_buffers(), Breaks(1)
    a = hessian(model, loss_func, batches(labelled(), 6, 6))
    with a.keeping_graphs():
        with pytest.raises(KeyError, match="broken"):
            a_product(a)
        loss_func.left = 2
        expected = a_product(a)
    with pytest.raises(KeyError, match="broken"), a.keeping_graphs():
        a_product(a)
    loss_func.left = 2
    assert torch.equal(a_product(a), expected)


def test_that_an_operator_follows_a_change_of_dtype() -> None:
    embedding = nn.Embedding(4, 2)
    data = torch.tensor([0, 1, 3]), normal(3, 2).float()

    def quartic(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).pow(4).sum()

    a = RiemannianHessian(embedding, quartic, embedding.parameters(), data)
    a_product(a)
    embedding.double()  # a change of dtype alone, with the same numbers
    assert torch.equal(a_product(a), a_product(RiemannianHessian(embedding, quartic, embedding.parameters(), data)))
