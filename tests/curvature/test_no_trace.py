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


def test_that_one_batch_is_evaluated_once_for_many_products_and_a_loader_is_not() -> None:
    model, loss_func = Counting(), nn.CrossEntropyLoss()
    for data, options, calls in (
        (labelled(), {}, 1),
        (batches(labelled(), 6, 6), {}, 6),
        (batches(labelled(), 6, 6), {"keep_graphs": True}, 2),
        (labelled(), {"keep_graphs": False}, 3),
    ):
        a = RiemannianHessian(model, loss_func, model.parameters(), data, **options)
        model.calls = 0
        for _ in range(3):
            a_product(a)
        assert model.calls == calls


def _in_place(model: nn.Module) -> None:
    with torch.no_grad():
        model[5].weight.mul_(1.5)


def _by_data(model: nn.Module) -> None:
    model[5].weight.data = model[5].weight.data * 1.5


def _within_data(model: nn.Module) -> None:
    model[5].weight.data.mul_(1.5)  # leaves no mark but the values


def _loaded(model: nn.Module) -> None:
    model.load_state_dict({k: 1.5 * v if k == "5.weight" else v for k, v in model.state_dict().items()})


def _buffers(model: nn.Module) -> None:
    model.eval()
    model[1].running_var.mul_(1.5)


def _mode(model: nn.Module) -> None:
    model[3].eval()


def _the_same(model: nn.Module) -> None:
    model.load_state_dict(model.state_dict())  # equal values, yet autograd will have no old graph of them


def _probability(model: nn.Module) -> None:
    model[3].p = 0.1


def _replaced(model: nn.Module) -> None:
    model[3] = nn.Tanh()


CHANGES = [_in_place, _by_data, _within_data, _loaded, _buffers, _mode, _probability, _replaced, _the_same]


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__.strip("_") for change in CHANGES])
@pytest.mark.parametrize("operator", [hessian, gauss_newton])
def test_that_kept_graphs_follow_every_change(operator: Any, change: Callable[[nn.Module], None]) -> None:
    model = model_with_buffers()
    if change is _buffers:
        model.eval()  # where they matter
    a = operator(model, nn.CrossEntropyLoss(), labelled())
    before = a_product(a)
    change(model)
    after = a_product(a)
    assert torch.equal(after, a_product(operator(model, nn.CrossEntropyLoss(), labelled())))
    assert torch.allclose(after, before) == (change is _the_same)


def test_that_kept_graphs_survive_what_only_looks_at_moved_weights() -> None:
    model = Counting()
    a = hessian(model, nn.CrossEntropyLoss(), labelled())
    before = a_product(a)
    sharpness(model, nn.CrossEntropyLoss(), model.parameters(), labelled(), steps=2)
    model.calls = 0
    assert torch.equal(a_product(a), before) and model.calls == 0


def test_that_a_function_is_evaluated_anew_since_its_modes_cannot_be_seen() -> None:
    model = model_with_buffers()
    a = RiemannianHessian(lambda x: model(x), nn.CrossEntropyLoss(), model.parameters(), labelled())
    a_product(a)
    model.eval()
    assert torch.equal(a_product(a), a_product(hessian(model, nn.CrossEntropyLoss(), labelled())))


def test_that_a_graph_that_could_not_be_renewed_is_not_used_again() -> None:
    model, loss_func = model_with_buffers(), Breaks(1)
    a = hessian(model, loss_func, labelled())
    a_product(a)
    _in_place(model)
    with pytest.raises(KeyError):
        a_product(a)
    loss_func.left = 1
    assert torch.equal(a_product(a), a_product(hessian(model, nn.CrossEntropyLoss(), labelled())))


def test_that_a_kept_graph_follows_a_change_of_dtype() -> None:
    embedding = nn.Embedding(4, 2)
    data = torch.tensor([0, 1, 3]), normal(3, 2).float()

    def quartic(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).pow(4).sum()

    a = RiemannianHessian(embedding, quartic, embedding.parameters(), data)
    a_product(a)
    embedding.double()  # the numbers are the same
    assert torch.equal(a_product(a), a_product(RiemannianHessian(embedding, quartic, embedding.parameters(), data)))
