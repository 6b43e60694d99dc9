"""That errors name the layer without a derivative, before or after torch raises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rsam.evaluation import NoHigherDerivative, check_graph, differentiable, explain


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * g


class OnceOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)


CULPRITS = {
    "EmbeddingBag": (lambda: nn.EmbeddingBag(5, 3), torch.tensor([[0, 1], [2, 3]]), 2),
    "Hardsigmoid": (nn.Hardsigmoid, torch.randn(2, 3), 2),
    "OnceOnly": (OnceOnly, torch.randn(2, 3), 2),
    "LayerNorm": (lambda: nn.LayerNorm(3), torch.randn(2, 3), 3),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), torch.randn(2, 3), 3),
}


def failing(name: str):
    make, x, order = CULPRITS[name]
    model = nn.Sequential(nn.ModuleDict({"inner": make()})["inner"], nn.Linear(3, 3), nn.Tanh())
    x = x.requires_grad_() if x.is_floating_point() else x
    leaves = [*model.parameters(), *([x] if x.requires_grad else [])]

    def loss() -> Tensor:
        return model(x).pow(3).sum()

    def value() -> Tensor:
        total = loss()
        for _ in range(order - 1):
            gradients = torch.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
            total = sum(g.pow(2).sum() for g in gradients if g is not None)
        return total

    return model, loss, value, order


@pytest.mark.parametrize("name", CULPRITS)
def test_the_module_is_named(name) -> None:
    model, loss, value, order = failing(name)
    buffers = [b.clone() for b in model.buffers()]
    with pytest.raises(NoHigherDerivative) as caught:
        check_graph(value(), order)
    advanced = [b.clone() for b in model.buffers()]
    explained = explain(caught.value, loss, model, order)
    assert isinstance(explained, NoHigherDerivative)
    assert str(explained).startswith(f"{name} '0' has no derivative of order {order} (")
    assert str(explain(caught.value, loss, order=order)).startswith(f"{name} has no")
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), advanced, strict=True))
    assert len(buffers) == len(advanced)


@pytest.mark.parametrize("name", ["Hardsigmoid", "OnceOnly", "EmbeddingBag"])
def test_torchs_own_error_is_recognised(name) -> None:
    _, _, value, _ = failing(name)
    with pytest.raises(RuntimeError) as caught:
        value().backward()
    assert isinstance(explain(caught.value), NoHigherDerivative)


def test_without_a_culprit_the_operation_is_named() -> None:
    error = RuntimeError("derivative for aten::made_up_backward is not implemented")
    explained = explain(error, lambda: nn.Linear(2, 2)(torch.ones(1, 2)).sum())
    assert isinstance(explained, NoHigherDerivative)
    assert "aten::made_up_backward" in str(explained)


def test_that_the_remedy_continues_the_sentence_of_torch() -> None:
    """Some of torch's messages end in a full stop."""
    error = RuntimeError("_efficient_attention_backward: does not support higher order derivatives.")
    said = str(explain(error))
    assert "higher order derivatives; build the loss within rsam.losses.differentiable()" in said


def test_other_errors_pass() -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert explain(error) is error


@pytest.mark.parametrize("name", ["Hardsigmoid", "LayerNorm", "BatchNorm1d"])
def test_what_the_context_replaces_passes(name) -> None:
    _, _, value, order = failing(name)
    with differentiable(order):
        total = value()
    check_graph(total, order)
    total.backward()


def test_batch_norm_in_eval_mode_passes() -> None:
    model, _, value, order = failing("BatchNorm1d")
    model.eval()
    check_graph(value(), order)
