"""That parameters outside of a penalty's list get their gradient if its value depends on them."""

from __future__ import annotations

import geoopt
import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam.losses import FisherTrace, GradientNorm
from tests.losses.problems import PENALTIES, closure_for, derivative, on
from tests.losses.test_gradients import OPTIONS, STEPS


class Network(nn.Module):
    """Smooth network with batch norm, biases, and a vector on a sphere; only its weights are penalised."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
        for p in self.layers.parameters():
            nn.init.normal_(p)
        unit = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
        self.scale = geoopt.ManifoldParameter(unit, manifold=geoopt.Sphere())
        self.x, self.y = torch.randn(6, 3, dtype=torch.float64), torch.arange(6) % 3
        self.weights = [p for p in self.layers.parameters() if p.dim() > 1]
        self.others = [p for p in self.parameters() if p.dim() == 1]

    def outputs(self) -> Tensor:
        return self.layers(self.x) * self.scale

    def loss(self) -> Tensor:
        return nn.functional.cross_entropy(self.outputs(), self.y)

    def both(self) -> tuple[Tensor, Tensor]:
        outputs = self.outputs()
        return nn.functional.cross_entropy(outputs, self.y), outputs


@pytest.mark.parametrize("objective", [False, True])
@pytest.mark.parametrize("name", PENALTIES)
def test_gradient_at_the_others_is_that_of_the_value(name, objective) -> None:
    model = Network()
    space = rsam.geometry.Product(model.others)
    tangents = space.random_tangent(model.others, generator=torch.Generator().manual_seed(1))

    def value() -> Tensor:  # the penalty is made anew each time, and draws the same probes
        penalty = PENALTIES[name](model.weights, **OPTIONS.get(name, {}), weight=0.7)
        fisher = isinstance(penalty, FisherTrace)
        if objective:
            return penalty.objective(model.both if fisher else model.loss)
        return penalty(model.outputs if fisher else model.loss)

    gradient = torch.autograd.grad(value(), model.others)
    actual = rsam.geometry.pairing(gradient, tangents).item()
    step, tolerance = STEPS[name]
    assert actual == pytest.approx(derivative(value, model.others, tangents, step), rel=tolerance, abs=tolerance)


def test_a_leaf_made_at_each_evaluation_is_no_matter() -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    penalty = GradientNorm([w], method="difference")
    value = penalty(lambda: (w.square() * torch.ones(2, requires_grad=True)).sum())
    value.backward()
    torch.testing.assert_close(w.grad, 2 * w.detach() / w.detach().norm(), rtol=1e-3, atol=0)


class Encoded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.head = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double(), nn.Linear(4, 3).double()
        self.x, self.y = torch.randn(6, 3, dtype=torch.float64), torch.arange(6) % 3

    def closure(self, z: Tensor | None, fisher: bool):
        def closure():
            outputs = self.head(self.encoder(self.x) if z is None else z)
            loss = nn.functional.cross_entropy(outputs, self.y)
            return (loss, outputs) if fisher else loss

        return closure


@pytest.mark.parametrize("name", PENALTIES)
def test_a_graph_shared_with_other_parts_of_the_step(name) -> None:
    model = Encoded()
    expected, actual = [], []
    for gradients, shared in ((expected, False), (actual, True)):
        penalty = PENALTIES[name](model.head.parameters())
        z = model.encoder(model.x)
        total = penalty.objective(model.closure(z if shared else None, isinstance(penalty, FisherTrace)))
        gradients += torch.autograd.grad(total + z.square().sum(), list(model.parameters()))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", [n for n in PENALTIES if "difference" in n or n == "sharpness"])
def test_a_moved_parameter_must_be_used_within_the_closure(name) -> None:
    model = Encoded()
    penalty = PENALTIES[name](model.named_parameters())
    closure = model.closure(model.encoder(model.x), isinstance(penalty, FisherTrace))
    with pytest.raises(ValueError, match=r"parameter 'encoder\.0\.weight' .* before it was called"):
        penalty.objective(closure)


def test_an_objective_does_not_compile_a_model_anew() -> None:
    compiled = []

    def backend(module, example):
        compiled.append(module)
        return module.forward

    model = Network()
    run = torch.compile(model.layers, backend=backend)
    penalty = GradientNorm(model.layers.parameters(), method="difference")
    for _ in range(3):
        penalty.objective(lambda: nn.functional.cross_entropy(run(model.x), model.y)).backward()
    assert len(compiled) == 1


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("objective", [False, True], ids=["alone", "objective"])
def test_a_parameter_that_the_batch_does_not_use_changes_nothing_and_gets_no_gradient(name, objective) -> None:
    """For example experts, tasks and heads; with a zero gradient momentum and weight decay would move them."""
    results = []
    unused = [
        geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere()),
        geoopt.ManifoldParameter(torch.tensor([0.1, 0.2]), manifold=geoopt.PoincareBall()),
        nn.Parameter(torch.ones(3)),
    ]
    for others in ([], unused):
        problem = on("sphere")
        # in front, where they would use up the probes of parameters behind
        penalty = PENALTIES[name]([*others, *problem.points])
        closure = closure_for(penalty, problem, objective)
        value = penalty.objective(closure) if objective else penalty(closure)
        value.backward()
        results.append((value, *(p.grad for p in problem.points)))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    assert all(p.grad is None for p in unused)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch 2.6 and later")
def test_an_exact_penalty_in_a_compiled_step_gets_the_remedy() -> None:
    model = Network()
    penalty = GradientNorm(model.weights)
    expected = torch.autograd.grad(penalty.objective(model.loss), model.weights)

    def step(objective):
        objective(model.loss).backward()

    torch.compiler.reset()
    with pytest.raises(RuntimeError, match=r"compile the model instead, or call .* through torch\.compiler\.disable"):
        torch.compile(step, backend="eager")(penalty.objective)
    torch.compile(step, backend="eager")(torch.compiler.disable(penalty.objective))
    torch.testing.assert_close([p.grad for p in model.weights], list(expected), rtol=0, atol=0)


def test_what_can_be_differentiated_only_once_is_refused_with_the_remedy() -> None:
    config = pytest.importorskip("torch._functorch.config")
    if not getattr(config, "donated_buffer", False):
        pytest.skip("this torch can differentiate compiled functions again")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    x, y = torch.randn(6, 3), torch.arange(6) % 3
    results = []

    def objective(run):
        def both():
            outputs = run(x)
            return nn.functional.cross_entropy(outputs, y), outputs

        return FisherTrace(model.parameters(), method="difference").objective(both)

    torch.compiler.reset()
    run = torch.compile(model, backend="aot_eager")
    run(x).sum().backward()  # now compiled to be differentiated once, as in a warm-up without the penalty
    with pytest.raises(RuntimeError, match=r"FisherTrace differentiates more than once .*donated_buffer = False"):
        objective(run)
    torch.compiler.reset()
    with config.patch(donated_buffer=False):
        for run in (model, torch.compile(model, backend="aot_eager")):
            results.append(torch.autograd.grad(objective(run), model.parameters()))
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch 2.6 and later")
@pytest.mark.parametrize("name", ["gradient_norm", "hessian_trace", "fisher_trace"])
def test_an_exact_penalty_of_a_compiled_model(name) -> None:
    model = Network()
    compiled = torch.compile(model.layers, backend="aot_eager")
    results = []
    for run in (model.layers, compiled):
        penalty = PENALTIES[name](model.layers.parameters())

        def closure():
            outputs = run(model.x)  # noqa: B023
            loss = nn.functional.cross_entropy(outputs, model.y)
            return (loss, outputs) if isinstance(penalty, FisherTrace) else loss  # noqa: B023

        value = penalty.objective(closure)
        results.append((value, *torch.autograd.grad(value, model.layers[0].weight)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)
