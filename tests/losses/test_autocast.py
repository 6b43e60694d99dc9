"""That differences choose their step by the precision of the evaluation: of autocast wherever it is on, and TF32."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from rsam.evaluation.reach import graph_of
from rsam.losses import FisherTrace, GradientNorm, HessianTrace, closure


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("kind", [GradientNorm, FisherTrace])
@pytest.mark.parametrize("objective", [True, False])
def test_gradient_is_near_the_exact_one_in_single_precision(kind, inside, objective) -> None:
    if inside and not hasattr(torch.ones((), requires_grad=True).clone().grad_fn, "_input_metadata"):
        pytest.skip("this torch does not tell the dtypes in a graph")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3))
    x, y = torch.randn(64, 8), torch.arange(64) % 3
    params = list(model.parameters())

    def autocast(enabled: bool) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=enabled, cache_enabled=True)

    def outputs(within: bool) -> Tensor:
        if not within:
            return model(x)
        with autocast(True):
            return model(x)

    def gradient(method: str, within: bool) -> Tensor:
        def closure():
            f = outputs(within).float()
            loss = nn.functional.cross_entropy(f, y)
            return ((loss, f) if objective else f) if kind is FisherTrace else loss

        penalty = kind(params, method=method)
        value = penalty.objective(closure) if objective else penalty(closure)
        if objective:
            value = value - nn.functional.cross_entropy(outputs(within).float(), y)
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, params)])

    exact = gradient("exact", False)
    with autocast(not inside):
        found = gradient("difference", inside)
    assert torch.cosine_similarity(found, exact, dim=0) > 0.95


class Multiply(torch.autograd.Function):
    """Matrix product in TF32, with 10 bits of each number, as on GPUs."""

    @staticmethod
    def rounded(x: Tensor) -> Tensor:
        return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return Multiply.rounded(a) @ Multiply.rounded(b)

    @staticmethod
    def backward(ctx, g):
        a, b, g = map(Multiply.rounded, (*ctx.saved_tensors, g))
        return g @ b.T, a.T @ g


@pytest.mark.parametrize("kind", [GradientNorm, HessianTrace, FisherTrace])
def test_gradient_in_tf32_is_near_the_exact_one_in_single_precision(kind, monkeypatch) -> None:
    torch.manual_seed(0)
    sizes = [32, 32, 32, 10]
    weights = [nn.Parameter(torch.randn(m, n) / m**0.5) for m, n in itertools.pairwise(sizes)]
    x, y = torch.randn(128, 32), torch.arange(128) % 10

    def gradient(method: str, product) -> Tensor:
        def evaluate():
            f = x
            for w in weights[:-1]:
                f = torch.tanh(product(f, w))
            f = product(f, weights[-1])
            return f if kind is FisherTrace else nn.functional.cross_entropy(f, y)

        value = kind(weights, method=method)(evaluate)
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, weights)])

    exact = gradient("exact", torch.matmul)
    monkeypatch.setattr(closure, "_in_tf32", lambda device, convolves: True)
    assert torch.cosine_similarity(gradient("difference", Multiply.apply), exact, dim=0) > 0.98


@pytest.fixture
def flags():
    """Restore torch's flags of TF32, which newer versions keep in two places each."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    backends = [(matmul, False)] + [(getattr(cudnn, name, cudnn), True) for name in ("conv", "rnn")]
    yield
    for backend, usual in backends:
        if hasattr(backend, "fp32_precision"):
            backend.fp32_precision = "tf32" if usual else "none"
        else:
            backend.allow_tf32 = usual


@pytest.mark.parametrize("newer", [False, True])
def test_that_tf32_is_noticed_as_torch_is_set(newer, flags, monkeypatch) -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if newer and not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has no fp32_precision")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    device = torch.device("cuda")

    def set_both(allowed: bool) -> None:
        if not newer:
            matmul.allow_tf32 = cudnn.allow_tf32 = allowed
            return
        matmul.fp32_precision = cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "tf32" if allowed else "ieee"

    # by default in convolutions only
    assert [closure._in_tf32(device, convolves) for convolves in (False, True)] == [False, True]
    set_both(True)
    assert closure._in_tf32(device, False)
    assert not closure._in_tf32(torch.device("cpu"), False)
    set_both(False)
    assert not closure._in_tf32(device, True)
    set_both(True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))  # has no TF32
    assert not closure._in_tf32(device, True)


def test_that_convolutions_are_noticed() -> None:
    layers = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, 1))
    assert graph_of(layers(torch.ones(1, 2, 4)).sum()).convolves
    assert not graph_of(layers[2](torch.ones(1, 9)).sum()).convolves
