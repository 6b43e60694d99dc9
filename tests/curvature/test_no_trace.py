"""Nothing that is measured leaves a trace in the model, and kept graphs never go stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import geoopt
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import rsam
from rsam.curvature import (
    RiemannianGaussNewton,
    RiemannianHessian,
    fisher_trace,
    gradient_norm,
    layer_traces,
    sharpness,
    spectral_density,
    top_eigenvalues,
    trace,
)
from tests.curvature.problems import batches, dense, labelled, normal

Measure = Callable[[nn.Module, Any, Any], Any]


def model_with_buffers() -> nn.Module:
    """Whatever changes by being looked at: running statistics, power iterations, random numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, 6),
            nn.BatchNorm1d(6),
            nn.Tanh(),
            nn.Dropout(0.3),
            nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5)),
            nn.Linear(5, 3),
        ).double()
    model[5].eval()  # modes need not agree
    return rsam.nn.constrain(model, geoopt.Sphere(), model[0].weight)


def hessian(model: nn.Module, loss_func: Any, data: Any) -> RiemannianHessian:
    return RiemannianHessian(model, loss_func, model.parameters(), data)


def gauss_newton(model: nn.Module, loss_func: Any, data: Any) -> RiemannianGaussNewton:
    return RiemannianGaussNewton(model, loss_func, model.parameters(), data)


def a_product(operator: Any) -> Tensor:
    return operator @ torch.ones(operator.shape[0], dtype=operator.dtype)


MEASURES: dict[str, Measure] = {
    "RiemannianHessian": hessian,
    "RiemannianHessian @": lambda *case: a_product(hessian(*case)),
    "RiemannianGaussNewton @": lambda *case: a_product(gauss_newton(*case)),
    "trace": lambda *case: trace(hessian(*case), 12),
    "trace xtrace": lambda *case: trace(hessian(*case), 4, method="xtrace"),
    "layer_traces": lambda *case: layer_traces(hessian(*case), 12),
    "top_eigenvalues": lambda *case: top_eigenvalues(hessian(*case), rtol=0.1),
    "spectral_density": lambda *case: spectral_density(hessian(*case), 4, repeats=1),
    "fisher_trace": lambda m, f, d: fisher_trace(m, f, m.parameters(), d, 3),
    "gradient_norm": lambda m, f, d: gradient_norm(m, f, m.parameters(), d),
    "sharpness": lambda m, f, d: sharpness(m, f, m.parameters(), d, steps=2, restarts=1),
    "sharpness average": lambda m, f, d: sharpness(m, f, m.parameters(), d, kind="average", probes=2),
    "sharpness micro_batch": lambda m, f, d: sharpness(m, f, m.parameters(), d, micro_batch=3),
}
each_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


class Untouched:
    """Everything about a model that a measurement could change, to be compared after it."""

    def __init__(self, model: nn.Module, with_grad: bool) -> None:
        self.model = model
        for p in model.parameters():
            p.grad = torch.full_like(p, 0.5) if with_grad else None
        self.before = self._look()

    def _look(self) -> dict[str, Any]:
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {
            "modes": [m.training for m in self.model.modules()],
            "identities": {name: (id(t), t.data_ptr()) for name, t in tensors.items()},
            "values": {name: t.detach().clone() for name, t in tensors.items()},
            "grads": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in self.model.parameters()],
            "random": torch.get_rng_state(),
        }

    def check(self) -> None:
        after = self._look()
        assert after["modes"] == self.before["modes"]
        assert after["identities"] == self.before["identities"]
        assert torch.equal(after["random"], self.before["random"])
        for name, value in self.before["values"].items():
            assert torch.equal(after["values"][name], value), name
        for new, old in zip(after["grads"], self.before["grads"], strict=True):
            assert (new is None) == (old is None)
            assert old is None or (new[0] == old[0] and torch.equal(new[1], old[1]))


@each_measure
@pytest.mark.parametrize("with_grad", [False, True], ids=["no grad", "grad"])
def test_that_no_measure_leaves_a_trace(measure: Measure, with_grad: bool) -> None:
    model = model_with_buffers()
    torch.manual_seed(11)
    untouched = Untouched(model, with_grad)
    measure(model, nn.CrossEntropyLoss(), DataLoader(TensorDataset(*labelled()), batch_size=6, shuffle=True))
    untouched.check()
    measure(model, nn.CrossEntropyLoss(), labelled())
    untouched.check()


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch 2.6 and later")
@pytest.mark.parametrize("name", ["RiemannianHessian @", "gradient_norm", "sharpness", "fisher_trace"])
def test_that_no_measure_of_a_model_that_is_compiled_in_place_leaves_a_trace(name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    model.compile(backend="eager")
    model(labelled()[0])
    untouched = Untouched(model, with_grad=True)
    MEASURES[name](model, nn.CrossEntropyLoss(), labelled())
    untouched.check()


class Breaks(nn.CrossEntropyLoss):
    """Fails after some calls."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyError("broken")
        return super().forward(outputs, targets)


class Feeding(nn.Module):
    """A model that fails after some calls, for what never calls its loss."""

    def __init__(self, model: nn.Module, after: int) -> None:
        super().__init__()
        self.model, self.left = model, after

    def forward(self, inputs: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyError("broken")
        return self.model(inputs)


# What evaluates at all fails in its second batch; what makes several passes, in the second pass too.
EVALUATING = [name for name in MEASURES if name != "RiemannianHessian"]
REPEATING = [name for name in EVALUATING if "@" not in name and name not in ("fisher_trace", "gradient_norm")]


@pytest.mark.parametrize(("name", "after"), [(name, 1) for name in EVALUATING] + [(name, 3) for name in REPEATING])
def test_that_no_failure_in_the_middle_leaves_a_trace(name: str, after: int) -> None:
    model = model_with_buffers()
    torch.manual_seed(11)
    untouched = Untouched(model, with_grad=True)
    pieces = batches(labelled(), 6, 6)
    with pytest.raises(KeyError, match="broken"):
        MEASURES[name](Feeding(model, after), nn.CrossEntropyLoss(), pieces)
    untouched.check()
    if name != "fisher_trace":  # which never calls its loss
        with pytest.raises(KeyError, match="broken"):
            MEASURES[name](model, Breaks(after), pieces)
        untouched.check()


def test_that_a_failure_at_moved_weights_puts_them_back() -> None:
    class Watching(Breaks):
        moved = False

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            self.moved = not torch.equal(model[5].weight, before)
            return super().forward(outputs, targets)

    model = model_with_buffers()
    before = model[5].weight.detach().clone()
    for options, after in (({}, 2), ({"kind": "average"}, 1), ({"micro_batch": 12}, 2)):
        untouched, loss_func = Untouched(model, with_grad=True), Watching(after)
        with pytest.raises(KeyError):
            sharpness(model, loss_func, model.parameters(), labelled(), **options)  # type: ignore[arg-type]
        assert loss_func.moved
        untouched.check()


def test_that_dropout_is_the_same_in_every_product_and_every_operator() -> None:
    model = model_with_buffers()
    for data in (labelled(), batches(labelled(), 7, 5)):
        a = hessian(model, nn.CrossEntropyLoss(), data)
        matrix = dense(a)
        torch.manual_seed(123)
        assert torch.equal(dense(a), matrix)
        assert torch.equal(dense(hessian(model, nn.CrossEntropyLoss(), data)), matrix)
        torch.testing.assert_close(matrix, matrix.mT, rtol=0, atol=1e-10)
    # and it is there
    model.eval()
    assert not torch.allclose(dense(a), matrix)


# -- kept graphs ------------------------------------------------------------------------------------------------------


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
        for _ in range(2):  # nothing is left over from one context to the next
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
    assert model.calls > 2  # the graphs of a loader may not fit
    model.calls = 0
    estimate(RiemannianHessian(model, loss_func, model.parameters(), labelled(), keep_graphs=False))
    assert model.calls > 1


class Told(nn.Module):
    """A model that depends on whatever Python has for attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.model = model_with_buffers()
        self.power, self.scales, self.options = 1, [1.0], {"shift": 0.0}
        self.function = torch.tanh

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        outputs = self.function(self.model(inputs["x"])) ** self.power
        return self.scales[0] * outputs.square() + self.options["shift"] * outputs


class Case:
    """A model, a loss and a batch, of which everything can be changed."""

    def __init__(self) -> None:
        # with weights, the Gauss-Newton matrix depends on the labels too
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
    torch.optim.SGD(case.told.parameters(), lr=0.1).step()


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
    # bfloat16 has 8 bits; the two are not one and the same graph, yet of one function
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1 * float(full.abs().max()))
    assert torch.equal(a_product(a), full)


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
    embedding.double()  # the numbers are the same
    assert torch.equal(a_product(a), a_product(RiemannianHessian(embedding, quartic, embedding.parameters(), data)))
