"""That no measurement changes the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rsam.curvature import (
    fisher_trace,
    gradient_norm,
    landscape,
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
    dense,
    gauss_newton,
    hessian,
    labelled,
    model_with_buffers,
)

Measure = Callable[[nn.Module, Any, Any], Any]


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
    "line": lambda m, f, d: landscape.line(m, f, m.parameters(), d, "gradient", steps=3, batch_norm="recompute"),
    "line with slopes": lambda m, f, d: landscape.line(
        m, f, m.parameters(), d, steps=3, batch_norm="batch", gradients=True
    ),
    "line to another solution": lambda m, f, d: landscape.line(
        m, f, m.named_parameters(), d, other=_another_solution(m), steps=3
    ),
    "plane": lambda m, f, d: landscape.plane(m, f, m.parameters(), d, steps=2, batch_norm="batch", in_memory=False),
}


def _another_solution(model: nn.Module) -> nn.Module:
    """Return a copy of a model with other statistics, and with other plain weights."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.0 if hasattr(p, "manifold") else 1.1)
        for b in other.buffers():
            b.mul_(2)
    return other


each_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


class Untouched:
    """Record of everything in a model that a measurement could change."""

    def __init__(self, model: nn.Module, with_grad: bool) -> None:
        self.model = model
        for p in model.parameters():
            p.grad = torch.full_like(p, 0.5) if with_grad else None
        self.before = self._look()

    def _look(self) -> dict[str, Any]:
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {
            "modes": [(m.training, getattr(m, "momentum", None)) for m in self.model.modules()],
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
def test_that_no_measure_changes_the_model(measure: Measure, with_grad: bool) -> None:
    model = model_with_buffers()
    torch.manual_seed(11)
    untouched = Untouched(model, with_grad)
    measure(model, nn.CrossEntropyLoss(), DataLoader(TensorDataset(*labelled()), batch_size=6, shuffle=True))
    untouched.check()
    measure(model, nn.CrossEntropyLoss(), labelled())
    untouched.check()


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch 2.6 and later")
@pytest.mark.parametrize("name", ["RiemannianHessian @", "gradient_norm", "sharpness", "fisher_trace", "line"])
def test_that_no_measure_changes_a_model_that_is_compiled_in_place(name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    model.compile(backend="eager")
    model(labelled()[0])
    untouched = Untouched(model, with_grad=True)
    MEASURES[name](model, nn.CrossEntropyLoss(), labelled())
    untouched.check()


class FailingModel(nn.Module):
    """Model that fails after some calls, also for measures that never call the loss."""

    def __init__(self, model: nn.Module, after: int) -> None:
        super().__init__()
        self.model, self.left = model, after

    def forward(self, inputs: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyError("broken")
        return self.model(inputs)


# Every measure fails in its second batch, and one with several passes in the second pass too.
EVALUATING = [name for name in MEASURES if name != "RiemannianHessian"]
REPEATING = [name for name in EVALUATING if "@" not in name and name not in ("fisher_trace", "gradient_norm")]


@pytest.mark.parametrize(("name", "after"), [(name, 1) for name in EVALUATING] + [(name, 3) for name in REPEATING])
def test_that_no_failure_in_the_middle_changes_the_model(name: str, after: int) -> None:
    model = model_with_buffers()
    torch.manual_seed(11)
    untouched = Untouched(model, with_grad=True)
    pieces = batches(labelled(), 6, 6)
    with pytest.raises(KeyError, match="broken"):
        MEASURES[name](FailingModel(model, after), nn.CrossEntropyLoss(), pieces)
    untouched.check()
    if name != "fisher_trace":  # fisher_trace never calls its loss
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
    # dropout does change it
    model.eval()
    assert not torch.allclose(dense(a), matrix)
