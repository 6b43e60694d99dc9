"""That the search finds the distance to a decision boundary."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rsam import NotFinite
from rsam.margins import distances, margins
from tests.margins.problems import DOUBLE, classes, convolutional, images, loader, normal, split


class Ellipse(nn.Module):
    """Classifier with class 1 within an ellipse."""

    def forward(self, x: Tensor) -> Tensor:
        inside = 1 - (x / x.new_tensor([2.0, 1.0])).square().sum(1)
        return torch.stack((torch.zeros_like(inside), inside), 1)


def test_that_distances_of_a_linear_classifier_are_its_margins() -> None:
    model, data = nn.Linear(5, 2).double(), (normal(20, 5), classes(20, 2))
    torch.testing.assert_close(distances(model, data), margins(model, data, normalize=False), rtol=1e-8, atol=1e-10)


def test_that_distances_to_a_curved_boundary_are_those_to_its_nearest_point() -> None:
    angles = torch.linspace(0, 2 * torch.pi, 100001, dtype=DOUBLE)[:-1]
    boundary = torch.stack((2 * angles.cos(), angles.sin()), 1)
    x = torch.tensor([[0.9, 0.5], [2.5, 0.4], [0.2, 1.3], [-1.8, 0.1], [0.3, -0.7], [2.0, 0.0]], dtype=DOUBLE)
    inside = (x / torch.tensor([2.0, 1.0])).square().sum(1) < 1
    expected = torch.cdist(x, boundary).amin(1)
    for label, sizes in ((0, (6,)), (1, (2, 3, 1))):
        actual = distances(Ellipse(), loader((x, torch.full((6,), label)), *sizes), steps=40)["input"]
        assert actual[5] == 0  # this point is on the boundary
        sign = torch.where(inside == bool(label), 1.0, -1.0).double()
        # the boundary is sampled by points 1e-4 apart, with an error below the square of that
        torch.testing.assert_close(actual, sign * expected, rtol=1e-6, atol=1e-6)


def test_that_one_step_measures_along_the_gradient() -> None:
    x = torch.tensor([[0.9, 0.5], [0.2, -0.3], [-1.8, 0.1]], dtype=DOUBLE)
    shape = torch.tensor([0.25, 1.0], dtype=DOUBLE)  # the ellipse is where the sum of shape x^2 is 1
    u = nn.functional.normalize(shape * x)
    a, b, c = ((shape * s * t).sum(1) for s, t in ((u, u), (u, x), (x, x)))
    expected = ((b**2 + a * (1 - c)).sqrt() - b) / a
    actual = distances(Ellipse(), (x, torch.ones(3, dtype=torch.long)), steps=1)["input"]
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=0)  # 30 halvings of an interval up to 10 times as long


@pytest.mark.parametrize("layer", ["input", "2"])
def test_that_a_ray_of_that_length_reaches_the_boundary_and_none_that_is_much_shorter_does(layer: str) -> None:
    model, (x, _) = convolutional(), images(6)
    before, after = split(model, -1 if layer == "input" else int(layer))
    h = before(x).detach()
    y = after(h).argmax(1)
    actual = distances(model, (x, y), [layer])[layer]
    assert torch.isfinite(actual).all() and (actual > 0).all()
    directions = normal(2000, 1, *h.shape[1:], seed=9)
    directions /= directions.flatten(1).norm(dim=1).reshape(-1, *[1] * h.dim())
    probes = h + 0.99 * actual.reshape(1, -1, *[1] * (h.dim() - 1)) * directions
    assert (after(probes.flatten(0, 1)).argmax(1) == y.repeat(2000)).all()


def test_that_hidden_layers_of_a_frozen_model_are_searched_as_well() -> None:
    model, (x, _) = convolutional(), images(6)
    y = model.eval()(x).argmax(1)
    expected = distances(model, (x, y), ["2"])["2"]
    assert torch.equal(distances(model.requires_grad_(False), (x, y), ["2"])["2"], expected)


def test_that_a_subspace_confines_the_search() -> None:
    x = torch.tensor([[0.9, 0.5]], dtype=DOUBLE)
    along = torch.tensor([[1.0], [0.0]], dtype=DOUBLE)
    actual = distances(Ellipse(), (x, torch.tensor([1])), subspaces={"input": along})["input"]
    assert float(actual) == pytest.approx(2 * 0.75**0.5 - 0.9, rel=1e-6)  # the boundary is at x^2 / 4 + 0.25 = 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_that_a_model_in_half_precision_is_searched_in_single(dtype: torch.dtype) -> None:
    model, (x, y) = nn.Linear(5, 2).to(dtype), (normal(20, 5).to(dtype), classes(20, 2))
    actual = distances(model, (x, y))["input"]
    expected = distances(model.double(), (x.double(), y))["input"]
    assert actual.dtype == torch.float32
    # points and logits, of about 1, are rounded in each evaluation, and the gradient is as long as a weight, about 0.3
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=10 * torch.finfo(dtype).eps)


def test_that_logits_that_are_not_finite_are_refused() -> None:
    x = torch.tensor([[0.5, 0.1], [torch.nan, 0.0]], dtype=DOUBLE)
    with pytest.raises(NotFinite, match="logits are not finite"):
        distances(Ellipse(), (x, torch.tensor([0, 1])))


def test_that_a_class_whose_logits_are_masked_has_no_boundary() -> None:
    model, (x, y) = nn.Linear(5, 3).double(), (normal(20, 5), classes(20))
    masked = nn.Sequential(model, nn.ConstantPad1d((0, 1), -torch.inf))
    for measure in (distances, margins):
        torch.testing.assert_close(measure(masked, (x, y))["input"], measure(model, (x, y))["input"])


@pytest.mark.parametrize("scale", [1e25, 1e-25])  # whose squares leave the range of single precision
def test_that_distances_and_margins_do_not_depend_on_the_scale_of_the_logits(scale: float) -> None:
    model, (x, y) = nn.Linear(5, 3), (normal(20, 5, dtype=torch.float32), classes(20))
    scaled = nn.Linear(5, 3)
    scaled.weight.data, scaled.bias.data = scale * model.weight.data, scale * model.bias.data
    for measure in (distances, margins):
        for subspaces in (None, {"input": torch.eye(5)[:, :3]}):
            actual = measure(scaled, (x, y), subspaces=subspaces)["input"]
            torch.testing.assert_close(actual, measure(model, (x, y), subspaces=subspaces)["input"])


class OneSided(nn.Module):
    """Classifier without a boundary: the first class always wins."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack((1 + x[:, 0].exp(), torch.zeros_like(x[:, 0])), 1)


def test_that_a_distance_is_infinite_where_there_is_no_boundary() -> None:
    x = torch.tensor([[0.5, 0.1], [-0.2, 0.0]], dtype=DOUBLE)
    assert distances(OneSided(), (x, torch.tensor([0, 1])))["input"].tolist() == [torch.inf, -torch.inf]


class Tilted(nn.Module):
    """Classifier with class 0 in a small disc, with logits whose gradient points past the disc."""

    def forward(self, x: Tensor) -> Tensor:
        outside = (x - x.new_tensor([3.0, 0.0])).square().sum(1) - 0.25
        return torch.stack((torch.zeros_like(outside), outside * (0.3 * x[:, 1]).exp()), 1)


def test_that_a_boundary_is_found_that_the_first_ray_misses() -> None:
    x = torch.zeros(1, 2, dtype=DOUBLE)
    (g,) = torch.autograd.grad(Tilted()(x.requires_grad_())[0, 1], x)
    t = torch.linspace(0, 1, 1000, dtype=DOUBLE)[:, None]
    assert (Tilted()(-t * 10 * g / g.norm())[:, 1] > 0).all()
    assert float(distances(Tilted(), (x.detach(), torch.tensor([1])))["input"]) == pytest.approx(2.5, rel=1e-4)


class AlwaysDropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


@pytest.mark.parametrize("sizes", [(20,), (7, 13)])
def test_that_a_search_is_one_of_a_single_draw_of_random_layers(sizes: tuple[int, ...]) -> None:
    # with the numbers of one draw the classifier is linear, so that the first-order margin is the distance
    model = nn.Sequential(AlwaysDropping(), nn.Linear(5, 2)).double()
    data = loader((normal(20, 5), classes(20, 2)), *sizes)
    torch.testing.assert_close(distances(model, data), margins(model, data, normalize=False), rtol=1e-8, atol=1e-10)
