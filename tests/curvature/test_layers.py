"""That second derivatives through the layers of real models are right."""

from __future__ import annotations

import copy
import sys
import warnings
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import rsam
from rsam.curvature import RiemannianGaussNewton, RiemannianHessian, landscape, sharpness, trace
from rsam.evaluation import NoHigherDerivative, differentiable
from tests.curvature.problems import DOUBLE, batches, dense, generator, labelled, normal, second_difference, snapshot

# -- batch norm -------------------------------------------------------------------------------------------------------


class ElementaryNorm(nn.Module):
    """Batch norm in train mode, by elementary operations."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(0)
        return centred / (centred.pow(2).mean(0) + self.eps).sqrt() * self.weight + self.bias


class ElementaryEvalNorm(nn.Module):
    """Batch norm in eval mode, by elementary operations."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.mean, self.scale = norm.running_mean.clone(), (norm.running_var + norm.eps).rsqrt()

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale * self.weight + self.bias


def normalised() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
        model(3 * torch.randn(50, 4, dtype=DOUBLE))  # some running statistics
    nn.init.uniform_(model[1].weight, 0.5, 1.5, generator=generator(1))
    return model


@pytest.mark.parametrize("operator", [RiemannianHessian, RiemannianGaussNewton])
@pytest.mark.parametrize("sizes", [(12,), (7, 5)], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_that_batch_norm_is_differentiated_as_its_elementary_twin(
    training: bool, sizes: tuple[int, ...], operator: Any
) -> None:
    model, pieces = normalised().train(training), batches(labelled(), *sizes)
    twin = nn.Sequential(model[0], (ElementaryNorm if training else ElementaryEvalNorm)(model[1]), model[2], model[3])
    ours, expected = (dense(operator(m, nn.CrossEntropyLoss(), m.parameters(), pieces)) for m in (model, twin))
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
    if training:  # the Hessian includes the dependence of the statistics on the parameters
        apart = dense(operator(model.eval(), nn.CrossEntropyLoss(), model.parameters(), pieces))
        assert float((ours - apart).norm()) > 0.1 * float(apart.norm())


# -- finite differences -----------------------------------------------------------------------------------------------


def difference(model: nn.Module, loss_func: Any, batch: Any, v: list[Tensor], h: float) -> Tensor:
    """Take a central difference of the gradient along ``v``, and restore the weights."""
    params = list(model.parameters())
    start, ends = snapshot(model), []
    for sign in (1, -1):
        with torch.no_grad():
            for p, x, t in zip(params, start, v, strict=True):
                p.copy_(x + sign * h * t)
        with differentiable(2), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = loss_func(model(batch[0]), batch[1])
        ends.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)]))
    with torch.no_grad():
        for p, x in zip(params, start, strict=True):
            p.copy_(x)
    return (ends[0] - ends[1]) / (2 * h)


def unit(model: nn.Module, seed: int = 4) -> list[Tensor]:
    flat = normal(sum(p.numel() for p in model.parameters()), seed=seed)
    pieces = (flat / flat.norm()).split([p.numel() for p in model.parameters()])
    return [piece.reshape(p.shape) for piece, p in zip(pieces, model.parameters(), strict=True)]


def test_that_a_resnet_in_train_mode_works() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torchvision.models.resnet18(num_classes=3).double()
    batch = normal(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    statistics = [b.clone() for b in model.buffers()]
    hessian = RiemannianHessian(model, nn.CrossEntropyLoss(), model.parameters(), batch)
    v = unit(model)
    product = torch.cat([p.flatten() for p in hessian @ v])
    assert all(torch.equal(a, b) for a, b in zip(statistics, model.buffers(), strict=True))
    # a step so short that it switches no ReLU; rounding is 1e-16 / h, 1e-9
    expected = difference(model, nn.CrossEntropyLoss(), batch, v, h=1e-7)
    assert float((product - expected).norm()) <= 1e-4 * float(expected.norm())


class Attending(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.attention(x, x, x, need_weights=self.need_weights)[0].mean(1))


class Last(nn.Module):
    """Last output of a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.last = layer, nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x)[0][:, -1])


class Encoding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation="gelu", batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.encoder(x).mean(1))


SEQUENCES = {
    "MultiheadAttention": (lambda: Attending(False), True),
    "MultiheadAttention with weights": (lambda: Attending(True), False),
    "TransformerEncoderLayer": (Encoding, True),
    "LSTM": (lambda: Last(nn.LSTM(4, 5, batch_first=True)), False),
    "GRU": (lambda: Last(nn.GRU(4, 5, num_layers=2, batch_first=True)), False),
    "RNN": (lambda: Last(nn.RNN(4, 5, batch_first=True)), False),
}


@pytest.mark.parametrize("operator", [RiemannianHessian, RiemannianGaussNewton])
@pytest.mark.parametrize(("make", "warns"), SEQUENCES.values(), ids=SEQUENCES)
def test_that_attention_and_recurrent_layers_work_with_one_warning_at_most(
    make: Any, warns: bool, operator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the attribute of this name in the package is the function
    monkeypatch.setattr(sys.modules["rsam.evaluation.higher_order"], "_warned", set())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().double()
    batch = normal(3, 6, 4), torch.tensor([0, 2, 1])
    a = operator(model, nn.CrossEntropyLoss(), model.parameters(), batch, keep_graphs=False)
    v = unit(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        product = torch.cat([p.flatten() for p in a @ v])
        trace(a, 2)
    about = [str(w.message) for w in caught if "scaled_dot_product" in str(w.message)]
    assert len(about) == warns == len(caught)
    if operator is RiemannianHessian:
        # the error is h^2 = 1e-8 times third derivatives; rounding 1e-12
        expected = difference(model, nn.CrossEntropyLoss(), batch, v, h=1e-4)
        torch.testing.assert_close(product, expected, rtol=1e-6, atol=1e-8)
    else:  # the Gauss-Newton matrix is never negative
        assert float(product @ torch.cat([t.flatten() for t in v])) > 0


def test_that_other_functions_are_differentiated_twice_on_constrained_kernels() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        ).double()
    rsam.nn.constrain(model, rsam.geometry.KernelStiefel(), nn.Conv2d)
    batch = normal(5, 2, 6, 6), torch.tensor([0, 1, 2, 1, 0])
    hessian = RiemannianHessian(model, nn.CrossEntropyLoss(), model.parameters(), batch)
    z = normal(hessian.shape[0], seed=3)
    z /= z.norm()
    tangents, start, params = hessian.tangents(z), snapshot(model), list(model.parameters())
    space = rsam.geometry.Product(params)

    def loss(t: float) -> float:
        points = space.exponential(params, [t * v for v in tangents])
        with torch.no_grad():
            for p, x in zip(params, points, strict=True):
                p.copy_(x)
            value = float(nn.functional.cross_entropy(model(batch[0]), batch[1]))
            for p, x in zip(params, start, strict=True):
                p.copy_(x)
        return value

    assert float(z @ (hessian @ z)) == pytest.approx(second_difference(loss), rel=1e-5)


# -- layers that have no second derivative ----------------------------------------------------------------------------


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g


class Cube(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)


class LastCubed(nn.Module):
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return Once.apply(outputs).square().mean()


@pytest.mark.parametrize("operator", [RiemannianHessian, RiemannianGaussNewton])
@pytest.mark.parametrize("data", [labelled(), batches(labelled(), 8, 4)], ids=["batch", "list"])
def test_that_a_layer_without_a_second_derivative_is_named(operator: Any, data: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.Tanh(), Cube()), nn.Linear(5, 3)).double()
    a = operator(model, nn.CrossEntropyLoss(), model.parameters(), data)
    with pytest.raises(NoHigherDerivative, match=r"Cube '1\.1' has no derivative of order 2"):
        a @ torch.ones(a.shape[0], dtype=DOUBLE)
    with pytest.raises(NoHigherDerivative, match=r"Cube '1\.1'"):
        trace(a, 2)


@pytest.mark.parametrize("operator", [RiemannianHessian, RiemannianGaussNewton])
def test_that_a_loss_without_a_second_derivative_is_named(operator: Any) -> None:
    model = nn.Linear(4, 3).double()
    a = operator(model, LastCubed(), model.parameters(), labelled())
    with pytest.raises(NoHigherDerivative, match="LastCubed has no derivative of order 2"):
        trace(a, 2)


@pytest.mark.parametrize("operator", [RiemannianHessian, RiemannianGaussNewton])
def test_that_what_can_be_replaced_in_a_loss_is_replaced(operator: Any) -> None:
    # torch has no second derivative of hardsigmoid, which is the clamped half of x / 3 + 1
    model = nn.Linear(4, 3).double()
    ours, expected = (
        dense(operator(model, lambda outputs, targets, f=f: f(outputs).square().mean(), model.parameters(), labelled()))
        for f in (nn.functional.hardsigmoid, lambda x: (x / 6 + 0.5).clamp(0, 1))
    )
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


# -- checkpoints ------------------------------------------------------------------------------------------------------


class Checkpointed(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.part, x, use_reentrant=False)


def with_part(make: Any, wrap: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(wrap(nn.Sequential(nn.Linear(4, 4), make())), nn.Tanh(), nn.Linear(4, 3)).double()


@pytest.mark.parametrize("operator", [RiemannianHessian, RiemannianGaussNewton])
@pytest.mark.parametrize("make", [lambda: nn.Dropout(0.5), lambda: nn.LayerNorm(4), lambda: nn.BatchNorm1d(4)])
def test_that_checkpoints_change_nothing(make: Any, operator: Any) -> None:
    ours, expected = (
        dense(operator(model, nn.CrossEntropyLoss(), model.parameters(), labelled()))
        for model in (with_part(make, Checkpointed), with_part(make, nn.Sequential))
    )
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("operator", [RiemannianHessian, RiemannianGaussNewton])
@pytest.mark.parametrize(
    "make",
    [
        nn.Hardsigmoid,
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        lambda: nn.BatchNorm1d(4).eval(),
        lambda: nn.BatchNorm1d(4, affine=False).eval(),
    ],
    ids=["hardsigmoid", "weight_norm", "batch_norm", "batch_norm_plain"],
)
@pytest.mark.parametrize("count", [1, 12])
def test_that_layers_that_a_checkpoint_would_not_replace_are_refused(make: Any, operator: Any, count: int) -> None:
    """The backward pass would take the tensors that the replacement saved for those of torch's kernel."""
    model = with_part(make, Checkpointed)
    a = operator(model, nn.CrossEntropyLoss(), model.parameters(), labelled(count))
    with pytest.raises(NoHigherDerivative, match=r"torch\.utils\.checkpoint .* of order 2; turn checkpointing off"):
        a @ torch.ones(a.shape[0], dtype=DOUBLE)


# -- weights that are rounded -----------------------------------------------------------------------------------------


def reflecting() -> tuple[nn.Module, Tensor]:
    """Return a network with Householder reflections, torch's default for matrices that are not square."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    nn.utils.parametrizations.orthogonal(model[0])
    return model, model[0].parametrizations.weight.original


def negated(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].parametrizations.weight.original.diagonal().neg_()
    return other


RANDOM = {
    "average": lambda *case: sharpness(*case, 0.01, kind="average", probes=1),
    "restarts": lambda *case: sharpness(*case, 0.01, restarts=1),
    "line": lambda *case: landscape.line(*case, steps=3),
    "filter": lambda *case: landscape.line(*case, "filter", steps=3),
    "plane": lambda *case: landscape.plane(*case, steps=3),
    "other": lambda model, *case: landscape.line(model, *case, other=negated(model), steps=3),
}


@pytest.mark.parametrize("measure", RANDOM.values(), ids=RANDOM)
@pytest.mark.parametrize("of", [lambda model: model, lambda model: model.forward], ids=["model", "function"])
def test_that_householder_reflections_are_not_moved_where_they_do_not_follow(of: Any, measure: Any) -> None:
    """Their layer rounds a diagonal of ones to integers: 0.999 gives 0, and a column of zeros."""
    model, original = reflecting()
    before = snapshot(model)
    names = dict(model.named_parameters())
    evaluated = model if measure is RANDOM["other"] else of(model)
    with pytest.raises(ValueError, match=r"parametrizations\.weight\.original' .* orthogonal_map='matrix_exp'"):
        measure(evaluated, nn.CrossEntropyLoss(), names.items(), labelled())
    assert all(map(torch.equal, model.parameters(), before))
    original.requires_grad_(False)  # the others are moved
    if measure is not RANDOM["other"]:
        measure(evaluated, nn.CrossEntropyLoss(), names.items(), labelled())


def test_that_householder_reflections_follow_the_gradient() -> None:
    model, original = reflecting()
    (x, y), loss = labelled(), nn.CrossEntropyLoss()
    case = model, loss, list(model.named_parameters()), (x, y)
    start = loss(model(x), y)
    gradients = torch.autograd.grad(start, [*model.parameters()])
    start = start.detach()
    moved, norm = copy.deepcopy(model), torch.cat([g.flatten() for g in gradients]).norm()
    with torch.no_grad():
        for p, g in zip(moved.parameters(), gradients, strict=True):
            p.add_(g / norm, alpha=0.1)
        end = loss(moved(x), y)
    assert float(sharpness(*case, 0.1)) == pytest.approx(float(end - start), rel=1e-9)  # rounding of the losses
    assert landscape.line(*case, "gradient", extent=(0, 0.1), steps=2).loss[1] == pytest.approx(float(end), rel=1e-12)
    along = landscape.line(*case, other=moved, steps=3)
    assert along.loss[[0, 2]] == pytest.approx([float(start), float(end)], rel=1e-12)
    with torch.no_grad():
        original.diagonal().mul_(0.5)  # as weight decay does: the columns are zero, and stay so along the gradient
    assert float(sharpness(*case, 0.1)) > 0
