"""That unmodified networks of torch and torchvision can be penalised."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rsam.losses import GradientNorm, HessianTrace, NoHigherDerivative, differentiable
from tests.losses.problems import derivative


class ElementaryBatchNorm(nn.Module):
    """Batch norm of images in train mode by elementary operations, with the parameters and buffers of torch's."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.momentum = norm.weight, norm.bias, norm.eps, norm.momentum
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)
        self.register_buffer("num_batches_tracked", norm.num_batches_tracked)

    def forward(self, x: Tensor) -> Tensor:
        dims = (0, 2, 3)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean += self.momentum * (x.mean(dims) - self.running_mean)
            self.running_var += self.momentum * (x.var(dims, unbiased=True) - self.running_var)
        centred = x - x.mean(dims, keepdim=True)
        deviation = (centred.pow(2).mean(dims, keepdim=True) + self.eps).sqrt()
        return self.weight.view(-1, 1, 1) * centred / deviation + self.bias.view(-1, 1, 1)


def elementary(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, ElementaryBatchNorm(child) if isinstance(child, nn.BatchNorm2d) else elementary(child))
    return module


def test_hessian_trace_of_a_residual_network_in_train_mode() -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=3).double()
    twin = elementary(copy.deepcopy(model))
    images, labels = torch.randn(3, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 1, 2])
    penalty = HessianTrace(model.named_parameters())
    probe = [torch.randn(p.shape, dtype=p.dtype) for p in model.parameters()]
    penalty.coordinates = lambda _: probe

    loss = nn.functional.cross_entropy(twin(images), labels)
    gradient = torch.autograd.grad(loss, list(twin.parameters()), create_graph=True)
    product = torch.autograd.grad(gradient, list(twin.parameters()), probe, create_graph=True)
    expected = sum((h * v).sum() for h, v in zip(product, probe, strict=True))
    (loss + 1e-3 * expected).backward()

    penalty.weight = 1e-3
    total = penalty.objective(lambda: nn.functional.cross_entropy(model(images), labels))
    total.backward()
    torch.testing.assert_close(total, loss + 1e-3 * expected)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-8 * q.grad.abs().max().item())
    for b, c in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(b, c)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.inside, self.head = kind(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inside(x)[0])


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x, x, x, need_weights=False)[0]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "attention": SelfAttention,
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, activation="gelu", batch_first=True),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "weight_norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Tanh()),
}


@pytest.mark.filterwarnings("ignore:scaled_dot_product_attention")
@pytest.mark.parametrize("kind", [GradientNorm, HessianTrace])
@pytest.mark.parametrize("name", NETWORKS)
def test_other_layers(name, kind) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]().double()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    params = list(model.parameters())
    # a bounded function of the outputs, since the transformer's normalised outputs have constant squares
    value = lambda: kind(params)(lambda: torch.sin(2 * model(x)).mean())  # noqa: E731
    tangents = [torch.randn_like(p) for p in params]
    gradient = torch.autograd.grad(value(), params, allow_unused=True)
    actual = sum((g * v).sum().item() for g, v in zip(gradient, tangents, strict=True) if g is not None)
    assert actual == pytest.approx(derivative(value, params, tangents, 1e-5), rel=1e-5, abs=1e-6)


def batch_normed(closure_only: bool = False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1))
    x = torch.randn(6, 4)
    return model, lambda: model(x).square().mean()


def test_a_loss_at_hand_with_batch_norm_is_refused_where_it_would_be_wrong() -> None:
    model, loss = batch_normed()
    GradientNorm(model.parameters())(loss()).backward()  # torch has these second derivatives
    with pytest.raises(NoHigherDerivative, match=r"batch_norm|order"):
        HessianTrace(model.parameters())(loss())
    with differentiable():
        at_hand = loss()
    HessianTrace(model.parameters())(at_hand).backward()


def test_a_layer_without_second_derivative_is_named_and_differences_do_without() -> None:
    model = nn.Sequential(nn.EmbeddingBag(5, 3), nn.Linear(3, 2))
    words = torch.tensor([[0, 1], [2, 3]])
    closure = lambda: model(words).square().sum()  # noqa: E731
    for kind in (GradientNorm, HessianTrace):
        with pytest.raises(NoHigherDerivative, match=r"EmbeddingBag.*method='difference'"):
            kind(model.parameters()).objective(closure)
        kind(model.parameters(), method="difference").objective(closure).backward()
    assert all(p.grad is not None for p in model.parameters())
