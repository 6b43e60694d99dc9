"""That margins are measured in the metric of a layer's manifold."""

from __future__ import annotations

import geoopt
import pytest
import torch
from torch import Tensor, nn

from rsam import NotFinite
from rsam.geometry import UnsupportedOperation
from rsam.margins import distances, margins, total_variations
from tests.geometry.positive import Positive
from tests.margins.problems import DOUBLE, classes, loader, normal

BALL = geoopt.PoincareBall().to(DOUBLE)


def points(count: int = 30, size: float = 0.5) -> Tensor:
    return BALL.expmap0(size * normal(count, 3))


def signed_distance(x: Tensor) -> Tensor:
    """Compute the distance to a hyperplane of the ball in closed form (Ganea et al. 2018, eq. 24)."""
    p, a = torch.tensor([0.2, -0.1, 0.3], dtype=DOUBLE), torch.tensor([0.5, 1.0, -0.3], dtype=DOUBLE)
    z, root = BALL.mobius_add(-p, x), BALL.c.sqrt()  # geoopt's c is rounded to single precision
    return torch.asinh(2 * root * (z @ a) / ((1 - BALL.c * z.square().sum(-1)) * a.norm())) / root


class OfDistance(nn.Module):
    """Classifier with a class on each side of the hyperplane; logits differ by a function of the distance to it."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        d = self.function(signed_distance(x))
        return torch.stack((torch.zeros_like(d), d), 1)


def ones(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.long)


def test_that_margins_are_geodesic_distances_where_the_logits_are() -> None:
    x = points(size=1.0)
    actual = margins(OfDistance(lambda d: d), (x, ones(x)), manifolds={"input": BALL}, normalize=False)["input"]
    torch.testing.assert_close(actual, signed_distance(x), rtol=1e-9, atol=1e-9)


def test_that_halving_the_distance_quarters_the_error_elsewhere() -> None:
    # at distances 0.08 and 0.04 on a geodesic perpendicular to the hyperplane
    foot = torch.tensor([0.2, -0.1, 0.3], dtype=DOUBLE)
    normal_there = BALL.egrad2rgrad(foot, torch.autograd.functional.jacobian(signed_distance, foot))
    times = torch.tensor([[0.08], [0.04]], dtype=DOUBLE)
    x = BALL.expmap(foot, times * normal_there)
    torch.testing.assert_close(signed_distance(x), times[:, 0])
    actual = margins(OfDistance(torch.expm1), (x, ones(x)), manifolds={"input": BALL}, normalize=False)["input"]
    errors = (actual - times[:, 0]).abs()
    assert float(errors[0] / errors[1]) == pytest.approx(4, rel=0.05)  # the error for 1 - exp(-d) is d^2 / 2 - d^3 / 6


@pytest.mark.parametrize("function", [torch.expm1, torch.tanh, lambda d: d + d**3])
def test_that_a_search_finds_the_geodesic_distance(function) -> None:
    x = points()
    actual = distances(OfDistance(function), (x, ones(x)), manifolds={"input": BALL})["input"]
    torch.testing.assert_close(actual, signed_distance(x), rtol=1e-6, atol=1e-8)


def test_that_total_variation_is_the_mean_square_distance_to_the_frechet_mean() -> None:
    # two points, twice each, at distance r on either side of their mean
    centre = torch.tensor([0.3, 0.2, -0.1], dtype=DOUBLE)
    u = BALL.egrad2rgrad(centre, torch.tensor([1.0, 2.0, 0.5], dtype=DOUBLE))
    r = 1.5
    u = r * u / BALL.norm(centre, u)
    x = BALL.expmap(centre, torch.stack((u, -u, u, -u)))
    actual = total_variations(OfDistance(lambda d: d), (x, ones(x)), manifolds={"input": BALL})["input"]
    torch.testing.assert_close(actual, torch.tensor(r**2, dtype=DOUBLE))


def test_that_the_frechet_mean_is_a_minimum_far_out_as_well() -> None:
    x = points(20, 4.0)  # distances of about 10, at which full gradient steps overshoot
    actual = total_variations(OfDistance(lambda d: d), loader((x, ones(x)), 3, 17), manifolds={"input": BALL})["input"]
    mean = torch.zeros(3, dtype=DOUBLE, requires_grad=True)
    optimizer = torch.optim.LBFGS([mean], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = BALL.dist(BALL.expmap0(mean).expand_as(x), x).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(actual) == pytest.approx(closure().item(), rel=1e-6)


def test_that_the_plain_space_is_the_flat_manifold() -> None:
    model, (x, y) = nn.Linear(3, 3).double(), (normal(20, 3), classes(20))
    flat = {"input": geoopt.Euclidean(ndim=1)}
    torch.testing.assert_close(margins(model, (x, y), manifolds=flat), margins(model, (x, y)))
    torch.testing.assert_close(distances(model, (x, y), manifolds=flat), distances(model, (x, y)))


class OfNumbers(nn.Module):
    """Classifier with two classes of examples that are numbers."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x))
        return torch.stack((torch.zeros_like(x), torch.tanh(x - 0.2)), 1)


@pytest.mark.parametrize("measure", [margins, distances, total_variations])
def test_that_an_example_may_be_a_number_which_is_a_point(measure) -> None:
    x, model = normal(9), OfNumbers()
    expected = measure(model, (x[:, None], ones(x)))["input"]
    torch.testing.assert_close(measure(model, (x, ones(x)))["input"], expected)
    # the exponential is an isometry from the line onto the positive numbers
    positive = nn.Sequential(Logarithm(), model)
    actual = measure(positive, (x.exp(), ones(x)), manifolds={"input": Positive()})["input"]
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-8)


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


class OnSphere(nn.Module):
    """Network that normalises a hidden layer, with several points for each example, to unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = Unit()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.unit(x).flatten(1))


class Unit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)


def test_that_radial_parts_of_a_gradient_do_not_count_on_a_sphere() -> None:
    model, (x, y) = OnSphere().double(), (normal(12, 2, 3), classes(12))
    actual = margins(model, (x, y), ["unit"], manifolds={"unit": geoopt.Sphere()}, normalize=False)["unit"]
    h, w = model.unit(x), model.head.weight.detach().reshape(3, 2, 3)
    f = model(x).detach()
    for i in range(12):
        j = int(f[i].scatter(0, y[i], -torch.inf).argmax())
        g = w[y[i]] - w[j]
        tangent = g - (g * h[i]).sum(-1, keepdim=True) * h[i]
        assert float(actual[i]) == pytest.approx(float((f[i, y[i]] - f[i, j]) / tangent.norm()), rel=1e-10)


def test_that_the_variation_of_several_points_is_the_sum_of_theirs() -> None:
    sphere, y = {"0": geoopt.Sphere()}, classes(12)
    x = torch.tensor([1.0, 0.0, 0.0]) + 0.3 * normal(12, 2, 3)  # so near to each other that their mean is unique
    both, one, other = (
        total_variations(
            nn.Sequential(Unit(), nn.Flatten(), nn.LazyLinear(3)).double(), (part, y), ["0"], manifolds=sphere
        )
        for part in (x, x[:, :1], x[:, 1:])
    )
    torch.testing.assert_close(both["0"], one["0"] + other["0"], rtol=1e-9, atol=0)


def test_that_points_without_a_mean_are_refused() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=DOUBLE)  # every point of the circle is as near to both
    with pytest.raises(NotFinite, match="no Fréchet mean of the representations at layer 'input'"):
        total_variations(nn.Linear(2, 2).double(), (x, torch.tensor([0, 1])), manifolds={"input": geoopt.Sphere()})


@pytest.mark.parametrize("manifold", [geoopt.Sphere(), geoopt.PoincareBall(), geoopt.Lorentz()], ids=repr)
@pytest.mark.parametrize("rounding", [0, 1])
def test_that_equal_points_have_no_variation_but_their_rounding(manifold, rounding: int) -> None:
    x = manifold.projx(torch.tensor([[0.3, 0.2, -0.1]])).repeat(12, 1)
    x[::2] *= 1 + rounding * torch.finfo(x.dtype).eps
    with pytest.raises(ValueError, match="all 12 examples have the same representation at layer 'input'"):
        margins(nn.Linear(3, 3), (x, classes(12)), manifolds={"input": manifold})


def test_that_margins_carry_no_graph_of_a_curvature_that_is_learned() -> None:
    ball, x = geoopt.PoincareBall(learnable=True), points().float()
    for normalize in (True, False):
        actual = margins(nn.Linear(3, 3), (x, classes(30)), manifolds={"input": ball}, normalize=normalize)["input"]
        assert not actual.requires_grad


def test_that_points_in_half_precision_are_on_their_manifold_up_to_rounding() -> None:
    model, (x, y), sphere = nn.Linear(3, 3), (normal(12, 3), classes(12)), {"input": geoopt.Sphere()}
    x = nn.functional.normalize(x).bfloat16()
    assert float((x.float().norm(dim=1) - 1).abs().max()) > 1e-3
    actual = margins(model.bfloat16(), (x, y), manifolds=sphere)["input"]
    expected = margins(model.double(), (nn.functional.normalize(x.double()), y), manifolds=sphere)["input"]
    torch.testing.assert_close(actual.double(), expected, rtol=0.05, atol=4 * torch.finfo(torch.bfloat16).eps)


def test_that_points_off_their_manifold_are_refused() -> None:
    x = 3 * normal(5, 3)
    with pytest.raises(ValueError, match=r"'input' puts out points that are not on PoincareBall"):
        margins(nn.Linear(3, 2).double(), (x, classes(5, 2)), manifolds={"input": BALL})


def test_that_a_manifold_without_logarithm_has_margins_but_no_variation() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double()
    x, manifold = torch.linalg.qr(normal(8, 3, 2))[0], {"input": geoopt.EuclideanStiefel()}
    assert margins(model, (x, classes(8)), manifolds=manifold, normalize=False)["input"].shape == (8,)
    with pytest.raises(UnsupportedOperation, match="EuclideanStiefel has no logarithm"):
        margins(model, (x, classes(8)), manifolds=manifold)


def test_that_no_distance_reaches_beyond_the_rim_of_a_ball() -> None:
    # geoopt keeps points in single precision within 0.996 of the radius, at distance 6.2 from the origin
    ball, layer = geoopt.PoincareBall(), nn.Linear(2, 2)
    layer.weight.data, layer.bias.data = torch.tensor([[1.0, 0.3], [0.0, 0.0]]), torch.tensor([0.9, 0.0])
    x = torch.tensor([[0.5, 0.3], [0.1, -0.9], [0.9, 0.0]])
    actual = distances(layer, (x, torch.zeros(3, dtype=torch.long)), manifolds={"input": ball})["input"]
    assert torch.isfinite(actual).any() and (actual[torch.isfinite(actual)] < 2 * 6.3).all()


def test_that_a_great_circle_is_not_taken_the_long_way_round() -> None:
    # a boundary at latitude 60 degrees, seen from latitudes on both sides of it
    class Polar(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            d = torch.asin(x[:, 2].flatten().clamp(-1, 1)) - torch.pi / 3
            return torch.stack((torch.zeros_like(d), torch.tanh(3 * d)), 1)

    latitudes = torch.tensor([-1.2, 0.0, 1.0, 1.2], dtype=DOUBLE)
    x = torch.stack((latitudes.cos(), torch.zeros_like(latitudes), latitudes.sin()), 1)
    actual = distances(Polar(), (x, ones(x)), manifolds={"input": geoopt.Sphere()})["input"]
    torch.testing.assert_close(actual, latitudes - torch.pi / 3, rtol=1e-5, atol=1e-6)
    # as orthonormal columns, which have no logarithm, so that the geodesic itself is measured
    column = {"input": geoopt.EuclideanStiefel()}
    actual = distances(Polar(), (x[2:, :, None], ones(x[2:])), manifolds=column)["input"]
    torch.testing.assert_close(actual, latitudes[2:] - torch.pi / 3, rtol=1e-5, atol=1e-6)
