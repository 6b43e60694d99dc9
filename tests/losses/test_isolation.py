"""That penalties have no side effects, and that objectives advance a model once."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam.losses import FisherTrace
from tests.losses.problems import PENALTIES


class Network(nn.Module):
    """Network with running statistics, dropout, kernels on spheres, and a count of its evaluations."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, 3)]
        self.layers = rsam.nn.constrain(nn.Sequential(*layers), rsam.geometry.KernelSphere(), nn.Conv2d)
        self.images, self.labels = torch.randn(8, 1, 6, 6), torch.arange(8) % 3
        self.evaluations = 0
        self.fails_at = 0

    def outputs(self) -> Tensor:
        self.evaluations += 1
        outputs = self.layers(self.images)
        if self.evaluations == self.fails_at:
            raise KeyError("closure")
        return outputs

    def loss(self) -> Tensor:
        return nn.functional.cross_entropy(self.outputs(), self.labels)

    def both(self) -> tuple[Tensor, Tensor]:
        outputs = self.outputs()
        return nn.functional.cross_entropy(outputs, self.labels), outputs

    def closures(self, penalty) -> tuple:
        """Return the closures of the penalty, and of its objective."""
        return (self.outputs, self.both) if isinstance(penalty, FisherTrace) else (self.loss, self.loss)


def state(model: Network) -> tuple[list, list]:
    """Return identities and values of everything that must not change."""
    tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *model.buffers()]
    identities = [(id(t), t.data_ptr(), t._version) for t in tensors] + [m.training for m in model.modules()]
    return identities, [t.detach().clone() for t in (*tensors, torch.get_rng_state())]


def unchanged(before: tuple[list, list], after: tuple[list, list]) -> bool:
    return before[0] == after[0] and all(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))


def prepared() -> Network:
    model = Network()
    model.loss().backward()  # so that .grad is not empty
    model.evaluations = 0
    return model


@pytest.mark.parametrize("name", PENALTIES)
def test_that_a_penalty_changes_no_model(name) -> None:
    model = prepared()
    penalty = PENALTIES[name](model.named_parameters())
    before = state(model)
    value = penalty(model.closures(penalty)[0])
    assert unchanged(before, state(model))
    value.backward()
    assert before[1][0].equal(next(model.parameters()).detach())


@pytest.mark.parametrize("fails_at", [1, 2, 3])
@pytest.mark.parametrize("name", PENALTIES)
def test_nor_does_an_exception_in_the_closure(name, fails_at) -> None:
    model = prepared()
    penalty = PENALTIES[name](model.named_parameters())
    model.fails_at = fails_at
    before = state(model)
    try:
        penalty(model.closures(penalty)[0])
    except KeyError:
        assert model.evaluations == fails_at
    else:
        assert model.evaluations < fails_at
    assert unchanged(before, state(model))


@pytest.mark.parametrize("name", PENALTIES)
def test_an_objective_advances_the_model_as_one_evaluation(name) -> None:
    model = Network()
    twin = copy.deepcopy(model)
    penalty = PENALTIES[name](model.named_parameters())
    torch.manual_seed(1)
    twin.loss()
    expected = torch.get_rng_state()
    torch.manual_seed(1)
    penalty.objective(model.closures(penalty)[1])
    assert torch.equal(torch.get_rng_state(), expected)
    for b, c in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(b, c)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.grad is None


@pytest.mark.parametrize("name", PENALTIES)
def test_a_graph_from_before_survives(name) -> None:
    model, twin = Network(), Network()
    penalty = PENALTIES[name](model.named_parameters(), weight=1e-6)
    torch.manual_seed(1)
    twin.loss().backward()
    torch.manual_seed(1)
    loss = model.loss()
    (loss + penalty(model.closures(penalty)[0])).backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-2, atol=1e-3)  # the penalty's part is about 1e-4


@pytest.mark.parametrize("name", [n for n in PENALTIES if "difference" in n or n == "sharpness"])
def test_all_evaluations_of_a_call_see_the_same_random_numbers(name) -> None:
    model = Network()
    penalty = PENALTIES[name](model.named_parameters())
    seen = []

    def outputs() -> Tensor:
        # random numbers of the forward pass, as for a mask, and of the closure, as for mixup
        seen.append([*torch.rand(3).tolist(), random.random(), np.random.rand()])  # noqa: NPY002
        return model.outputs()

    def loss() -> Tensor:
        return nn.functional.cross_entropy(outputs(), model.labels)

    def both() -> tuple[Tensor, Tensor]:
        f = outputs()
        return nn.functional.cross_entropy(f, model.labels), f

    fisher = isinstance(penalty, FisherTrace)
    evaluations = 3 if name in ("hessian_trace_difference", "sharpness") else 2
    for call, closure, checks in (
        (penalty, outputs if fisher else loss, 1),  # the first call checks that the closure repeats
        (penalty.objective, both if fisher else loss, 0),
    ):
        seen.clear()
        call(closure)
        assert len(seen) == evaluations + checks
        assert all(numbers == seen[0] for numbers in seen)


class Counting(nn.Module):
    """Layer that computes with a buffer that it advances, as spectral norm in train mode does."""

    def __init__(self, advances: bool) -> None:
        super().__init__()
        self.advances = advances
        self.register_buffer("count", torch.tensor(1.0 if advances else 2.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        if self.advances:
            self.count += 1
        return x * self.count


@pytest.mark.parametrize("of_objective", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_all_evaluations_of_a_call_start_from_the_same_buffers(name, of_objective) -> None:
    def result(advances: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), Counting(advances), nn.Tanh(), nn.Linear(4, 3)).double()
        x, y = torch.randn(6, 3, dtype=torch.float64), torch.arange(6) % 3

        def closure() -> Tensor | tuple[Tensor, Tensor]:
            outputs = model(x)
            loss = nn.functional.cross_entropy(outputs, y)
            if isinstance(penalty, FisherTrace):
                return (loss, outputs) if of_objective else outputs
            return loss

        penalty = PENALTIES[name](model.named_parameters())
        value = penalty.objective(closure) if of_objective else penalty(closure)
        value.backward()
        assert model[1].count == (1 if advances and not of_objective else 2)
        return [value.detach(), *(p.grad for p in model.parameters())]

    for actual, expected in zip(result(advances=True), result(advances=False), strict=True):
        assert torch.equal(actual, expected)  # the operations are the same


@pytest.mark.parametrize("name", PENALTIES)
def test_weight_zero_evaluates_nothing(name) -> None:
    model = Network()
    penalty = PENALTIES[name](model.named_parameters(), weight=0.0)
    value = penalty(model.closures(penalty)[0])
    value.backward()
    assert value.item() == 0
    assert model.evaluations == 0
    penalty.objective(model.closures(penalty)[1]).backward()
    assert model.evaluations == 1
    penalty.weight = 1.0  # as in a warm-up
    penalty(model.closures(penalty)[0])
    assert model.evaluations > 1


@pytest.mark.parametrize("name", PENALTIES)
def test_an_objective_reaches_parameters_that_are_not_penalised(name) -> None:
    model, twin = Network(), Network()
    head = [(n, p) for n, p in model.named_parameters() if n.startswith("layers.5")]
    penalty = PENALTIES[name](head, weight=1e-6)
    torch.manual_seed(1)
    penalty.objective(model.closures(penalty)[1]).backward()
    torch.manual_seed(1)
    twin.loss().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-2, atol=1e-3)
