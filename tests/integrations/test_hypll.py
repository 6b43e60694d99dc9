"""That hypll's models train with our optimizers, as with its own where those are right."""

from __future__ import annotations

import pytest
import torch

import rsam

pytest.importorskip("hypll")

import hypll.optim
from hypll.manifolds.euclidean import Euclidean
from hypll.manifolds.poincare_ball import Curvature, PoincareBall
from hypll.nn import HEmbedding, HLinear
from hypll.tensors import ManifoldParameter, TangentTensor

from rsam.integrations.hypll import Ball, named_parameters, parameters

NODES = torch.arange(6)


class Model(torch.nn.Module):
    """Model with an embedding in the ball, a hyperbolic layer with plain weights, and a plain layer."""

    def __init__(self, c: float = 1.0, trained: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        ball = PoincareBall(Curvature(c, requires_grad=trained))
        self.embedding, self.layer = HEmbedding(6, 3, ball), HLinear(3, 2, ball)
        with torch.no_grad():
            self.embedding.weight.tensor.mul_(0.5)
        self.scale = torch.nn.Parameter(torch.ones(2))

    def loss(self) -> torch.Tensor:
        embedded = self.embedding(NODES)
        targets = torch.linspace(-0.3, 0.3, 12).reshape(6, 2)
        return ((self.scale * self.layer(embedded).tensor - targets) ** 2).sum() + embedded.tensor[:, 0].sum()


def _trained(model: Model, optimizer: torch.optim.Optimizer, steps: int = 4) -> list[torch.Tensor]:
    for _ in range(steps):
        for p in parameters(model):
            p.grad = None
        model.loss().backward()
        optimizer.step()
    return [p.detach().clone() for p in parameters(model)]


@pytest.mark.parametrize("c", [0.3, 1.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_that_steps_are_those_of_hypll_without_momentum(c, weight_decay) -> None:
    ours, theirs = Model(c), Model(c)
    options = {"lr": 0.05, "weight_decay": weight_decay}
    got = _trained(ours, rsam.optim.RiemannianSGD(parameters(ours), **options))
    expected = _trained(theirs, hypll.optim.RiemannianSGD(theirs.parameters(), **options))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)  # a few steps in float32


@pytest.mark.parametrize("amsgrad", [False, True])
def test_that_adam_on_the_ball_without_a_first_moment_is_that_of_hypll(amsgrad) -> None:
    # hypll transports momentum in parallel, which rotates it, and we keep its direction in the coordinates
    options = {"lr": 0.05, "betas": (0.0, 0.9), "amsgrad": amsgrad}

    def run(ours: bool) -> torch.Tensor:
        embedding = Model().embedding
        if ours:
            optimizer = rsam.optim.RiemannianAdam(parameters(embedding), **options)
        else:
            optimizer = hypll.optim.RiemannianAdam(embedding.parameters(), **options)
        targets = torch.linspace(-0.4, 0.4, 18).reshape(6, 3)
        for _ in range(5):
            embedding.weight.tensor.grad = None
            ((embedding(NODES).tensor - targets) ** 2).sum().backward()
            optimizer.step()
        return embedding.weight.tensor.detach()

    torch.testing.assert_close(run(ours=True), run(ours=False), rtol=1e-4, atol=1e-5)


def test_that_hypll_still_forgets_its_momentum() -> None:
    """hypll's buffer stays the first Euclidean gradient; once this test fails, compare its SGD with momentum too."""
    model = Model()
    optimizer = hypll.optim.RiemannianSGD(model.parameters(), lr=0.05, momentum=0.9)
    _trained(model, optimizer, 1)
    weight = model.embedding.weight
    first = optimizer.state[weight]["momentum_buffer"].tensor.clone()
    _trained(model, optimizer, 3)
    assert torch.equal(optimizer.state[weight]["momentum_buffer"].tensor, first)


def test_that_rsam_trains_a_model_and_keeps_its_points_in_the_ball() -> None:
    model = Model()
    optimizer = rsam.RSAM(parameters(model), rsam.optim.RiemannianAdam, lr=0.02, rho=0.05)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model.loss()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0] and optimizer.sharpness > 0
    assert model.embedding.weight.tensor.norm(dim=-1).max() < 1


def test_that_the_curvature_is_hypll_s_trained_or_not() -> None:
    model = Model(0.7, trained=True)
    named = dict(named_parameters(model))
    point = named["embedding.weight"]
    assert point is model.embedding.weight.tensor and isinstance(point.manifold, Ball)
    value = model.embedding.manifold.c.value
    assert any(p is value for p in parameters(model))
    with torch.no_grad():
        value.fill_(2.0)
    geometry = rsam.geometry.geometry_of(point.manifold)
    c = torch.nn.functional.softplus(torch.tensor(2.0))
    g = torch.ones_like(point)
    expected = g * ((1 - c * point.square().sum(-1, keepdim=True)) / 2) ** 2
    torch.testing.assert_close(geometry.raise_index(point, g), expected)
    _trained(model, rsam.optim.RiemannianSGD(parameters(model), lr=0.01, momentum=0.9))
    assert value.item() != 2.0
    tangent = TangentTensor(g / 8, manifold_points=model.embedding.weight, manifold=model.embedding.manifold)
    end = model.embedding.manifold.expmap(tangent).tensor
    torch.testing.assert_close(geometry.exponential(point, g / 8), end)


def test_that_equal_balls_are_stacked() -> None:
    one, two = (HEmbedding(6, 3, PoincareBall(Curvature(1.0))) for _ in range(2))
    layers = torch.nn.ModuleList([one, two])
    points = [p for p in parameters(layers) if p.dim()]
    assert len(rsam.geometry.Product(points).blocks) == 1
    two.manifold.c.value.data.fill_(2.0)
    assert len(rsam.geometry.Product(points).blocks) == 2


def test_that_shells_and_what_cannot_be_stepped_are_refused_by_name() -> None:
    model = Model()
    with pytest.raises(TypeError, match=r"PoincareBall of the package 'hypll' .* rsam.integrations.hypll.parameters"):
        rsam.RSAM([model.embedding.weight], lr=0.1)
    model.turned = ManifoldParameter(torch.zeros(3, 2), manifold=model.embedding.manifold, man_dim=0)
    with pytest.raises(ValueError, match=r"the points of 'turned', shape \(3, 2\), lie along dimension 0"):
        list(parameters(model))

    class Other(Euclidean.__base__):  # hypll's base class
        pass

    Other.__abstractmethods__ = frozenset()
    model.turned = ManifoldParameter(torch.zeros(3, 2), manifold=Other(), man_dim=-1)
    with pytest.raises(TypeError, match=r"'turned' lives on tests\..*Other, of which rsam knows no geometry"):
        list(parameters(model))
