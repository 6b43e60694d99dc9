"""That evaluations change neither buffers nor random state, and parameters can have other values for a while."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable

import geoopt
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import rsam
from rsam.evaluation import at_points, isolated


class Counting(nn.Module):
    """Module with buffers in a child that it never calls: one under two names, and one that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Module()
        self.child.register_buffer("calls", torch.zeros(()))
        self.register_buffer("same", self.child.calls)
        self.register_buffer("absent", None)
        self.norm = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        self.child.calls += 1
        assert self.same is self.child.calls
        return self.dropout(self.norm(x))


def snapshot(model: nn.Module) -> list[tuple[int, Tensor]]:
    return [(id(b), b.clone()) for b in model.buffers()]


def unchanged(model: nn.Module, before: list[tuple[int, Tensor]]) -> bool:
    return all(id(b) == i and torch.equal(b, value) for b, (i, value) in zip(model.buffers(), before, strict=True))


def test_buffers_and_random_state_are_as_before() -> None:
    model, x = Counting(), torch.randn(5, 3)
    before, state = snapshot(model), torch.get_rng_state()
    with isolated():
        model(x)
        model(x)
        assert model.child.calls == 2  # within the context they advance
    assert unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    model(x)
    assert model.child.calls == 1


def test_random_states_of_python_and_numpy_are_as_before() -> None:
    def draw() -> tuple[float, float]:
        return random.random(), np.random.rand()  # noqa: NPY002

    with isolated():
        first = draw()
    assert draw() == first


def test_that_parametrized_weights_are_those_of_the_present_parameters_whatever_is_cached() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    scale = layer.parametrizations.weight.original0
    with parametrize.cached():
        cached = layer.weight
        with isolated(), at_points([scale], [2 * scale]):
            moved = layer.weight
        with isolated(), torch.no_grad():
            assert not layer.weight.requires_grad
        assert layer.weight is cached  # a training step in this context is as before
    torch.testing.assert_close(moved, 2 * cached)


def test_after_an_exception_too() -> None:
    model, x = Counting(), torch.randn(5, 3)
    before = snapshot(model)
    with pytest.raises(KeyError), isolated():
        model(x)
        raise KeyError
    assert unchanged(model, before)
    model(x)
    assert not unchanged(model, before)


def test_nested() -> None:
    model, x = Counting(), torch.randn(5, 3)
    before = snapshot(model)
    with isolated():
        with isolated():
            model(x)  # called for the first time inside
        model(x)
        state = torch.get_rng_state()
        with isolated():
            model(x)
            assert model.child.calls == 2
        assert model.child.calls == 1
        assert torch.equal(torch.get_rng_state(), state)
    assert unchanged(model, before)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("foreign", [False, True])
def test_that_a_module_gets_its_own_buffers_back_after_calls_that_lend_it_others(foreign: bool, nested: bool) -> None:
    model, x = Counting(), torch.randn(5, 3)
    model(x)
    before = snapshot(model)
    lent = {name: b.clone() if foreign else b for name, b in model.named_buffers()}
    values = {name: b.clone() for name, b in lent.items()}
    with isolated(), isolated() if nested else contextlib.nullcontext():
        for _ in range(2):
            torch.func.functional_call(model, (dict(model.named_parameters()), lent), (x,))
        model(x)
        torch.func.functional_call(model, dict(model.named_parameters()), (x,))
    assert unchanged(model, before)
    assert all(torch.equal(lent[name], value) for name, value in values.items())
    model(x)
    assert model.child.calls == 2
    assert not unchanged(model, before)


def test_graphs_from_before_and_from_within_survive() -> None:
    model, x = Counting(), torch.randn(5, 3)
    older = model(x).sum()
    with isolated():
        inside = model.eval()(x).sum()  # needs the running statistics
        model.train()(x)
    older.backward()
    inside.backward()


def test_lazy_buffers_are_left_to_their_module() -> None:
    norm = nn.LazyBatchNorm1d()
    with isolated():
        norm(torch.randn(5, 3))
    assert norm.running_mean.shape == (3,)


def test_modules_of_other_threads_are_left_alone() -> None:
    model, x = Counting(), torch.randn(5, 3)
    with isolated():
        thread = threading.Thread(target=model, args=(x,))
        thread.start()
        thread.join()
    assert model.child.calls == 1


# -- at other weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("manifold", [None, geoopt.Sphere()])
def test_parameters_are_moved_and_come_back(manifold, dtype) -> None:
    x = torch.tensor([0.6, 0.8], dtype=dtype)
    p = nn.Parameter(x) if manifold is None else geoopt.ManifoldParameter(x, manifold=manifold)
    place, version = p.data_ptr(), p._version
    with pytest.raises(KeyError), at_points([p], [torch.zeros(2, dtype=dtype)]):
        assert p.tolist() == [0, 0]
        raise KeyError
    assert p.data_ptr() == place
    assert p._version == version
    assert torch.equal(p.detach(), torch.tensor([0.6, 0.8], dtype=dtype))
    assert manifold is None or p.manifold is manifold


def test_a_graph_from_before_can_still_be_differentiated() -> None:
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    loss = p.pow(3).sum()
    with at_points([p], [torch.zeros(2)]):
        (elsewhere,) = torch.autograd.grad(p.pow(3).sum(), p)
    loss.backward()
    assert elsewhere.tolist() == [0, 0]
    assert p.grad.tolist() == [3, 12]  # 3 p^2


def test_autocast_does_not_remember_other_values() -> None:
    layer, x = nn.Linear(2, 2, bias=False), torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        before = layer(x)
        with at_points([layer.weight], [torch.zeros(2, 2)]):
            assert not layer(x).any()
        assert torch.equal(layer(x), before)


def test_wrong_points_are_refused() -> None:
    p = nn.Parameter(torch.ones(2))
    for point in (torch.ones(3), torch.ones(2, dtype=torch.float64)):
        with pytest.raises(ValueError, match="point 0"), at_points([p], [point]):
            pass
    assert p.tolist() == [1, 1]


# -- layers that write to their weights ---------------------------------------------------------------------------

TOKENS, LABELS = torch.tensor([[0, 1], [2, 3], [1, 2]]), torch.tensor([0, 1, 0])
CE = nn.CrossEntropyLoss()

Measure = Callable[[nn.Module], object]
MEASURES: dict[str, Measure] = {
    "gradient_norm": lambda m: rsam.curvature.gradient_norm(m, CE, m.parameters(), (TOKENS, LABELS)),
    "function of the model": lambda m: rsam.curvature.gradient_norm(
        lambda x: m(x), CE, m.parameters(), (TOKENS, LABELS)
    ),
    "sharpness": lambda m: rsam.curvature.sharpness(m, CE, m.parameters(), (TOKENS, LABELS), steps=1),
    "line": lambda m: rsam.curvature.landscape.line(m, CE, m.parameters(), (TOKENS, LABELS), steps=2),
    "penalty": lambda m: rsam.losses.GradientNorm(m.parameters())(lambda: CE(m(TOKENS), LABELS)),
    "differences": lambda m: rsam.losses.GradientNorm(m.parameters(), method="difference").objective(
        lambda: CE(m(TOKENS), LABELS)
    ),
}


def classifier(max_norm: float | None) -> nn.Module:
    model = nn.Sequential(nn.Embedding(4, 3, max_norm=max_norm), nn.Flatten(), nn.Linear(6, 2))
    for i, p in enumerate(model.parameters()):
        nn.init.normal_(p, generator=torch.Generator().manual_seed(i))
    return model


@pytest.mark.parametrize("name", MEASURES)
def test_that_a_layer_that_writes_to_its_weights_is_refused_by_name(name: str) -> None:
    model = classifier(max_norm=0.5)
    if name == "differences":
        model(TOKENS)  # an objective evaluates the loss at the weights as training does
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match=r"Embedding '0' rescales .*\(max_norm=0\.5\).* set its max_norm = None"):
        MEASURES[name](model)
    assert torch.equal(model[0].weight, before)
    MEASURES[name](classifier(max_norm=None))


def test_that_the_exact_objective_trains_a_layer_that_writes_to_its_weights() -> None:
    model, other = classifier(max_norm=0.5), classifier(max_norm=0.5)
    value = rsam.losses.GradientNorm(model.parameters()).objective(lambda: CE(model(TOKENS), LABELS))
    loss = CE(other(TOKENS), LABELS)
    norm = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*other.parameters()])]).norm()
    assert torch.equal(model[0].weight, other[0].weight) and model[0].weight.norm(dim=1).max() <= 0.5
    torch.testing.assert_close(value, loss + norm)


def test_that_bags_are_refused_too_but_not_where_another_layer_is_to_blame() -> None:
    bag = nn.EmbeddingBag(4, 3, max_norm=0.5)
    with isolated(), pytest.raises(ValueError, match="EmbeddingBag rescales"):
        bag(TOKENS)
    with pytest.raises(rsam.errors.NoHigherDerivative, match="EmbeddingBag has no derivative of order 2"):
        rsam.losses.GradientNorm(bag.parameters()).objective(lambda: bag(TOKENS).square().sum())
