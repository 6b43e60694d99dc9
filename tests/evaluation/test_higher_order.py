"""That layers in the context have right second and third derivatives, and their usual values."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rsam.evaluation import differentiable

DOUBLE = torch.float64


class Attention(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return self.heads(x, x, x, **self.options)[0]


class Fused(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(super().forward(x), x, x)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "batch_norm_1d": (lambda: nn.BatchNorm1d(4), (6, 4)),
    "batch_norm_2d": (lambda: nn.BatchNorm2d(2), (3, 2, 4, 4)),
    "batch_norm_plain": (lambda: nn.BatchNorm2d(2, affine=False, track_running_stats=False), (3, 2, 4, 4)),
    "batch_norm_cumulative": (lambda: nn.BatchNorm1d(2, momentum=None), (3, 2, 5)),
    "instance_norm": (lambda: nn.InstanceNorm2d(2), (3, 2, 4, 4)),
    "instance_norm_affine": (lambda: nn.InstanceNorm1d(2, affine=True, track_running_stats=True), (3, 2, 4)),
    "layer_norm": (lambda: nn.LayerNorm(4), (6, 4)),
    "layer_norm_2d": (lambda: nn.LayerNorm((3, 4), elementwise_affine=False), (6, 3, 4)),
    "group_norm": (lambda: nn.GroupNorm(2, 4), (3, 4, 3)),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), (5, 4)),
    "weight_norm_dim": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3), dim=1), (5, 4)),
    "hardsigmoid": (nn.Hardsigmoid, (5, 4)),
    "attention": (lambda: Attention(need_weights=False), (2, 3, 4)),
    "attention_with_weights": (Attention, (2, 3, 4)),
    "scaled_dot_product": (lambda: Fused(4, 4), (2, 1, 3, 4)),
    "transformer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (2, 3, 4)),
    "lstm": (lambda: nn.LSTM(4, 3, batch_first=True), (2, 5, 4)),
    "gru": (lambda: nn.GRU(4, 3, batch_first=True), (2, 5, 4)),
    "rnn": (lambda: nn.RNN(4, 3, batch_first=True), (2, 5, 4)),
}
# layers that torch refuses or gets wrong, from this order on; when torch changes, so should the replacement
DEFECTS = {
    "batch_norm_2d": 3,
    "instance_norm": 3,
    "layer_norm": 3,
    "weight_norm": 2,
    "hardsigmoid": 2,
    "scaled_dot_product": 2,
}


def build(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    return make().to(DOUBLE), torch.randn(shape, dtype=DOUBLE)


def along_a_line(module: nn.Module, x: Tensor, t: Tensor, context) -> Tensor:
    """Return a smooth function of t: a layer with input and parameters at t on a fixed line."""
    generator = torch.Generator().manual_seed(1)

    def moved(p: Tensor) -> Tensor:
        return p + t * torch.randn(p.shape, dtype=p.dtype, generator=generator)

    values = {name: moved(p.detach()) for name, p in module.named_parameters()}
    values |= {name: b.clone() for name, b in module.named_buffers()}
    with context:
        y = torch.func.functional_call(module, values, (moved(x),))
    y = y[0] if isinstance(y, tuple) else y
    return (torch.randn(y.shape, dtype=y.dtype, generator=generator) * torch.sin(y) + y**3 / 10).sum()


def derivatives(name: str, order: int, at: float = 0.0, context=None) -> list[float]:
    module, x = build(name)
    t = torch.tensor(at, dtype=DOUBLE, requires_grad=True)
    value = along_a_line(module, x, t, differentiable(order) if context is None else context)
    values = []
    for _ in range(order):
        (value,) = torch.autograd.grad(value, t, create_graph=True)
        values.append(value.item())
    return values


@pytest.mark.filterwarnings("ignore:scaled_dot_product_attention")
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_derivatives_agree_with_finite_differences_of_lower_ones(name, order) -> None:
    step = 1e-5
    ahead, behind = derivatives(name, order - 1, step), derivatives(name, order - 1, -step)
    expected = (ahead[-1] - behind[-1]) / (2 * step)
    # the errors of the difference are step^2 times a fifth derivative, and rounding / step
    assert derivatives(name, order)[-1] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", DEFECTS)
def test_torch_itself_still_needs_it(name) -> None:
    order = DEFECTS[name]
    right = derivatives(name, order)[-1]
    try:
        actual = derivatives(name, order, context=differentiable(1))[-1]
    except RuntimeError:
        return
    assert actual != pytest.approx(right, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", [n for n in LAYERS if "norm" in n])
def test_values_and_running_statistics_are_those_of_the_layer(name, train, dtype) -> None:
    native, x = build(name)
    native, x = native.to(dtype).train(train), x.to(dtype)
    for p in native.parameters():
        nn.init.uniform_(p)
    ours = copy.deepcopy(native)
    # the same numbers in another order of operations
    tolerance = 20 * torch.finfo(dtype).eps
    for _ in range(3):
        expected = native(x)
        with differentiable():
            actual = ours(x)
        assert actual.dtype == expected.dtype
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    for b, a in zip(ours.buffers(), native.buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)


def test_running_statistics_do_not_invalidate_an_older_graph() -> None:
    norm, x = nn.BatchNorm1d(3), torch.randn(4, 3)
    loss = norm(x).pow(3).sum()
    with differentiable():
        norm(x)
    loss.backward()


def test_batch_norm_refuses_a_single_value_per_channel_as_ever() -> None:
    with differentiable(), pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm1d(3)(torch.ones(1, 3))


def test_attention_is_mentioned_once(monkeypatch) -> None:
    import sys

    monkeypatch.setattr(sys.modules["rsam.evaluation.higher_order"], "_warned", set())
    x = torch.randn(1, 3, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with differentiable(2):
            nn.Linear(4, 4)(x)
        assert not caught
        for _ in range(2):
            with differentiable(2):
                F.scaled_dot_product_attention(x, x, x)
                Attention(need_weights=False)(x)
    assert [str(w.message) for w in caught] == [
        "scaled_dot_product_attention is computed in its math form, since the fused kernels have no second derivative"
    ]


def test_nothing_is_replaced_outside_of_it() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    with differentiable():
        pass
    assert "BatchNorm" in F.batch_norm(x, None, None, training=True).grad_fn.name()
    with differentiable(2):  # torch has this second derivative
        assert "BatchNorm" in F.batch_norm(x, None, None, training=True).grad_fn.name()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (4, 3, 2, 2)])
def test_that_batch_norm_in_evaluation_mode_is_the_affine_map_of_torch(shape: tuple[int, ...], affine: bool) -> None:
    norm = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)](3, affine=affine).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    norm(x.detach())  # some statistics
    norm.eval()
    if affine:
        torch.nn.init.normal_(norm.weight)
    leaves = [x, *norm.parameters()]

    def second(y: Tensor) -> list[Tensor]:
        gradients = torch.autograd.grad(y.tanh().square().sum(), leaves, create_graph=True)
        total = torch.stack([(g * g.detach().cos()).sum() for g in gradients]).sum()
        return list(torch.autograd.grad(total, leaves))

    plain = norm(x)
    with differentiable(2):
        ours = norm(x)
    torch.testing.assert_close(ours, plain)
    assert ours.grad_fn.name() != plain.grad_fn.name()
    for one, other in zip(second(ours), second(plain), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch 2.6 and later")
@pytest.mark.parametrize("order", [2, 3])
def test_what_is_compiled_runs_as_it_was_before(order) -> None:
    x = torch.randn(3, dtype=DOUBLE, requires_grad=True)

    @torch.compile(backend="aot_eager")
    def compiled(x: Tensor) -> Tensor:
        return x.pow(4).sum()

    def derivative(value: Tensor) -> Tensor:
        for _ in range(order):
            (g,) = torch.autograd.grad(value.sum(), x, create_graph=True)
            value = g
        return value

    with pytest.raises(RuntimeError, match="double backward"):
        derivative(compiled(x))  # when this passes, the replacement is no longer needed
    with differentiable(order):
        value = compiled(x)
    torch.testing.assert_close(derivative(value), {2: 12 * x**2, 3: 24 * x}[order])
    with pytest.raises(RuntimeError, match="double backward"):
        derivative(compiled(x))  # outside the context compiled functions run as before
