"""That mistakes are named, and change neither weights nor gradients."""

from __future__ import annotations

import geoopt
import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam.losses import FisherTrace, GradientNorm, HessianTrace, NoHigherDerivative, Sharpness
from tests.losses.problems import PENALTIES, Problem, closure_for, on

BOTH = pytest.mark.parametrize("method", ["exact", "difference"])


def weights() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: GradientNorm([]), "empty"),
        (
            lambda p: GradientNorm(p),
            r"params must be an iterable of tensors, such as model\.parameters\(\), got a tensor",
        ),
        (lambda p: HessianTrace(nn.Sequential(nn.Flatten())), r"such as model\.parameters\(\), got Sequential"),
        (lambda p: FisherTrace(nn.Linear(2, 3)), r"such as model\.parameters\(\), got Linear"),
        (lambda p: Sharpness({"w": p}, 0.1), r"such as model\.parameters\(\), got dict"),
        (lambda p: GradientNorm([p * 2]), "parameter 0 must be a leaf"),
        (lambda p: GradientNorm([("w", 3.0)]), "parameter 'w' must be a leaf tensor, got float"),
        (lambda p: GradientNorm([p], method="exactly"), "method must be 'exact' or 'difference', got 'exactly'"),
        (lambda p: GradientNorm([p], p=3), "p must be 1 or 2, got 3"),
        (lambda p: GradientNorm([p], weight=-1.0), "weight"),
        (lambda p: GradientNorm([p], weight=float("nan")), "weight"),
        (lambda p: GradientNorm([p], step=0.0), "step must be positive"),
        (lambda p: HessianTrace([p], probes=0), "probes must be at least 1, got 0"),
        (lambda p: HessianTrace([p], probes=1.5), "probes must be an integer, got 1.5"),
        (lambda p: GradientNorm([p], weight=p), "weight must be a number, got Parameter; multiply the penalty by"),
        (lambda p: GradientNorm([p], weight="0.1"), "weight must be a number, got str"),
        (lambda p: HessianTrace([p], distribution="uniform"), "distribution must be 'normal' or 'rademacher'"),
        (lambda p: HessianTrace([p], clamp=float("inf")), "clamp"),
        (lambda p: FisherTrace([p], likelihood="poisson"), "likelihood must be one of"),
        (lambda p: Sharpness([p], rho=0.0), "rho must be positive"),
    ],
)
def test_options_out_of_range(make, says) -> None:
    with pytest.raises(ValueError, match=says):
        make(weights())


@pytest.mark.parametrize("name", PENALTIES)
def test_that_a_penalty_shows_its_present_weight(name) -> None:
    penalty = PENALTIES[name]([weights()], weight=0.125)
    assert repr(penalty) == f"{type(penalty).__name__}(weight=0.125)"
    penalty.weight = 0.5
    assert "weight=0.5" in str(nn.ModuleDict({"penalty": penalty}))


def test_options_that_have_no_meaning() -> None:
    with pytest.raises(TypeError, match="method"):
        Sharpness([weights()], 0.1, method="exact")
    with pytest.raises(TypeError, match="distribution"):
        FisherTrace([weights()], distribution="normal")


def test_a_weight_set_later_is_checked_too() -> None:
    w = weights()
    penalty = GradientNorm([w])
    penalty.weight = -1.0
    with pytest.raises(ValueError, match="weight"):
        penalty(w.sum())


def test_frozen_parameters_are_left_out_until_none_is_left() -> None:
    w, v = weights(), weights()
    penalty = GradientNorm([w, v], p=2)
    v.requires_grad_(False)
    assert penalty(lambda: w.square().sum() + v.sum()).item() == 20  # |2 w|^2
    w.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        penalty(lambda: w.sum())


def test_a_parameter_given_twice_counts_once() -> None:
    w = weights()
    assert GradientNorm([("tied", w), ("again", w)], p=2)(lambda: w.square().sum()).item() == 20  # |2 w|^2


LOSSES = {
    "no graph": (lambda w: w.detach().sum(), ValueError, "without a graph"),
    "a number": (lambda w: w.sum().item(), ValueError, "scalar loss, got float"),
    "a vector": (lambda w: 2 * w, ValueError, r"scalar loss, got shape \(2,\)"),
    "not finite": (lambda w: w.sum() / 0, rsam.NotFinite, "not finite"),
    "gradient not finite": (lambda w: (w - w).abs().sqrt().sum(), rsam.NotFinite, "not finite"),
}


@BOTH
@pytest.mark.parametrize("kind", [GradientNorm, HessianTrace])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_are_none(name, kind, method) -> None:
    w = weights()
    w.grad = torch.ones(2)
    loss, error, says = LOSSES[name]
    for call in (kind([w], method=method), kind([w], method=method).objective):
        with pytest.raises(error, match=says):
            call(lambda: loss(w))
    assert w.tolist() == [1, 2]
    assert w.grad.tolist() == [1, 1]


@BOTH
def test_that_objective_refuses_a_loss_in_the_place_of_a_closure(method) -> None:
    w = weights()
    with pytest.raises(TypeError, match=r"GradientNorm\.objective takes a closure that returns the loss, got Tensor"):
        GradientNorm([w], method=method).objective(w.square().sum())


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_that_a_call_refuses_what_is_neither_a_loss_nor_a_closure(weight) -> None:
    with pytest.raises(TypeError, match="GradientNorm takes the loss or a closure that returns it, got float"):
        GradientNorm([weights()], weight=weight)(2.0)


@pytest.mark.parametrize("name", PENALTIES)
def test_parameters_that_are_all_outside_of_the_graph_are_named(name) -> None:
    w = weights()
    unused = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    penalty = PENALTIES[name]([("unused", unused), ("other", weights())])
    says = r"does not depend on parameter 'unused' \(shape \(2,\), Sphere\), nor on any other"

    def outputs():
        return w[None].sin()

    def loss():
        return outputs().square().sum()

    fisher = isinstance(penalty, FisherTrace)
    with pytest.raises(ValueError, match=says):
        penalty(outputs if fisher else loss)
    with pytest.raises(ValueError, match=says):
        penalty.objective((lambda: (loss(), outputs())) if fisher else loss)
    assert w.grad is None


@pytest.mark.parametrize("name", PENALTIES)
def test_that_a_penalty_in_inference_mode_says_that_there_is_no_graph(name) -> None:
    problem = on("plain")
    penalty = PENALTIES[name](problem.points)
    with torch.inference_mode():
        with pytest.raises(ValueError, match=r"without a graph: torch.inference_mode\(\) builds none"):
            penalty(closure_for(penalty, problem))
        with pytest.raises(ValueError, match=r"without a graph: torch.inference_mode\(\) builds none"):
            penalty.objective(closure_for(penalty, problem, objective=True))


def test_differences_need_a_closure() -> None:
    w = weights()
    for penalty in (GradientNorm([w], method="difference"), Sharpness([w], 0.1)):
        with pytest.raises(ValueError, match="pass a closure"):
            penalty(w.square().sum())


@BOTH
def test_a_closure_that_calls_backward(method) -> None:
    w = weights()

    def closure():
        loss = w.square().sum()
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="must not call backward"):
        GradientNorm([w], method=method).objective(closure)


@BOTH
def test_outputs_and_losses_are_told_apart(method) -> None:
    w = weights()
    penalty = FisherTrace([w], method=method)
    with pytest.raises(ValueError, match="outputs"):
        penalty(lambda: w.sum())
    with pytest.raises(ValueError, match=r"\(loss, outputs\)"):
        penalty.objective(lambda: w.sum())


@BOTH
def test_a_manifold_without_second_order_is_named(method) -> None:
    w = weights()
    p = geoopt.ManifoldParameter(torch.eye(3) / 2 + 1 / 6, manifold=geoopt.BirkhoffPolytope())
    before = p.detach().clone()
    params = [("weight", w), ("mixing", p)]
    for penalty in (HessianTrace(params, method=method), Sharpness(params, 0.1)):
        named = r"^parameter 'mixing' \(shape \(3, 3\), BirkhoffPolytope\): BirkhoffPolytope has no exponential"
        with pytest.raises(rsam.geometry.UnsupportedOperation, match=named):
            penalty(lambda: p.square().sum() * w.sum())
    assert torch.equal(p, before)


LEARNABLE = {
    "ball": lambda: geoopt.PoincareBall(1.2, learnable=True),
    "positive": lambda: geoopt.Stereographic(0.6, learnable=True),
    "scaled": lambda: geoopt.Scaled(geoopt.Sphere(), 2.0, learnable=True),
}


@pytest.mark.parametrize("kind", LEARNABLE)
@pytest.mark.parametrize("name", PENALTIES)
def test_the_gradient_in_a_learnable_curvature_is_right_or_refused(name, kind) -> None:
    manifold = LEARNABLE[kind]().double()
    (constant,) = manifold.parameters()
    points = torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]], dtype=torch.float64) / (1 if kind == "scaled" else 2)
    problem = Problem([geoopt.ManifoldParameter(points, manifold=manifold)])

    def value() -> Tensor:
        penalty = PENALTIES[name]([("points", problem.points[0])])
        return penalty(closure_for(penalty, problem))

    if "difference" in name or name == "sharpness":
        with pytest.raises(ValueError, match=r"in the learnable '\w+' of the manifold of parameter 'points' .*; fre"):
            value()
        constant.requires_grad_(False)
        assert value().isfinite()
        return
    value().backward()
    ends = []
    for step in (1e-4, -1e-4):  # central differences: errors of 1e-8 and of rounding, 1e-12
        with torch.no_grad():
            constant.add_(step)
        ends.append(float(value().detach()))
        with torch.no_grad():
            constant.sub_(step)
    assert float(constant.grad) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-5)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_manifold_that_is_lost_between_steps_is_refused_by_name(name) -> None:
    problem = on("sphere")
    penalty = PENALTIES[name](list(zip("abc", problem.points, strict=True)))
    penalty(closure_for(penalty, problem))
    del problem.points[2].manifold
    with pytest.raises(ValueError, match=r"^parameter 'c' \(shape \(3, 4\), Sphere\) lost its manifold"):
        penalty(closure_for(penalty, problem))


def test_second_derivatives_of_a_difference_are_refused() -> None:
    w = weights()
    total = GradientNorm([w], method="difference").objective(lambda: w.pow(3).sum())
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(total, w, create_graph=True)


@pytest.mark.parametrize("name", PENALTIES)
def test_parameters_without_entries_change_nothing(name) -> None:
    layer = nn.Linear(2, 3)
    empty = nn.Parameter(torch.zeros(0))
    results = []
    for params in ([*layer.parameters()], [*layer.parameters(), empty], [empty]):
        penalty = PENALTIES[name](params)

        def outputs():
            return layer(torch.ones(4, 2)).sin() + empty.sum()

        def closure():
            loss = outputs().square().sum()
            return (loss, outputs()) if isinstance(penalty, FisherTrace) else loss  # noqa: B023

        value = penalty.objective(closure)
        results.append((value, torch.autograd.grad(value, layer.weight)[0]))
    torch.testing.assert_close(results[1], results[0])
    loss = outputs().square().sum()
    torch.testing.assert_close(results[2], (loss, torch.autograd.grad(loss, layer.weight)[0]))


@BOTH
def test_a_loss_that_is_the_parameter(method) -> None:
    w = nn.Parameter(torch.tensor(3.0))
    penalty = GradientNorm([w], method=method)
    for call, expected in ((penalty, (1.0, 0.0)), (penalty.objective, (4.0, 1.0))):
        value = call(lambda: w)
        (gradient,) = torch.autograd.grad(value, w, allow_unused=True)
        assert (value.item(), 0 if gradient is None else gradient.item()) == expected


@pytest.mark.parametrize("name", PENALTIES)
def test_sparse_gradients_are_refused_by_name(name) -> None:
    table, layer = nn.Embedding(5, 2, sparse=True), nn.Linear(2, 3)
    penalty = PENALTIES[name]([("table", table.weight), *layer.named_parameters()])

    def outputs():
        return layer(table(torch.tensor([0, 3])))

    with pytest.raises(ValueError, match=r"parameter 'table' .* sparse gradients.* use sparse=False"):
        penalty(outputs if isinstance(penalty, FisherTrace) else lambda: outputs().square().sum())


def test_a_batch_of_nothing_has_no_fisher_trace() -> None:
    layer = nn.Linear(2, 3)
    with pytest.raises(ValueError, match="one example or more"):
        FisherTrace(layer.parameters())(lambda: layer(torch.ones(0, 2)))


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm1d(3), nn.LayerNorm(3), nn.Hardsigmoid(), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))],
)
def test_a_loss_built_outside_of_the_context_gets_the_remedy(layer) -> None:
    model = nn.Sequential(nn.Linear(2, 3), layer)
    loss = model(torch.randn(4, 2)).pow(3).sum()
    with pytest.raises(NoHigherDerivative, match=r"within rsam\.losses\.differentiable\(\), or pass a closure"):
        HessianTrace(model.named_parameters())(loss)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_penalty_in_the_closure_of_another_is_refused(name) -> None:
    """Differences of random penalties would be those of their probes."""
    problem = on("plain")
    inner, outer = PENALTIES[name](problem.points), GradientNorm(problem.points, method="difference")
    for call in (outer, outer.objective):
        for value in (
            lambda: inner.objective(closure_for(inner, problem, True)),
            lambda: problem.loss() + inner(closure_for(inner, problem)),
        ):
            with pytest.raises(ValueError, match=r"add it outside: first\.objective\(closure\) \+ second\(closure\)"):
                call(value)
    # as the message says; and a refusal leaves nothing behind
    parts = outer.objective(problem.loss), inner(closure_for(inner, problem))
    assert torch.isfinite(sum(parts))
    inner.weight = 0.0  # not evaluated
    unweighted = outer.objective(lambda: inner.objective(closure_for(inner, problem, True)))
    torch.testing.assert_close(unweighted, outer.objective(problem.loss))
