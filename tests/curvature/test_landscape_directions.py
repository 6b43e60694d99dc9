"""That directions are normalised as by hand, and that a trajectory's are those of its plane."""

from __future__ import annotations

import math
from typing import Any

import geoopt
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam.curvature import landscape
from rsam.curvature.landscape import line, normalize_filters, plane, random_directions, trajectory_directions
from rsam.errors import UnsupportedOperation
from tests.curvature.problems import DOUBLE, examples, functional, mixed_network, network, normal, probed

MSE = nn.MSELoss()


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()


def li_et_al(model: nn.Module, seed: int) -> list[Tensor]:
    """Scale each filter of a random direction to the norm of the weights' filter, without biases and batch norm."""
    direction = random_directions(model.parameters(), 1, seed=seed)[0]
    for d, w in zip(direction, model.parameters(), strict=True):
        if d.dim() <= 1:
            d.fill_(0)
            continue
        for filter_d, filter_w in zip(d, w.detach(), strict=True):
            filter_d.mul_(filter_w.norm() / filter_d.norm())
    return direction


def test_that_filters_are_normalised_as_by_li_and_others() -> None:
    model, data = convolutional(), (normal(5, 2, 4, 4), normal(5, 2, seed=1))
    expected = li_et_al(model, seed=3)
    (found,) = random_directions(model.parameters(), 1, filter_normalized=True, seed=3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    curve = line(model, MSE, model.parameters(), data, "filter", seed=3, extent=2.0, steps=3)
    same = line(model, MSE, model.parameters(), data, expected, extent=2.0, steps=3)
    np.testing.assert_allclose(curve.loss, same.loss, rtol=1e-12)
    assert curve.unit == "filter norms"


def test_that_vectors_are_scaled_as_a_whole_if_asked() -> None:
    model = convolutional()
    with torch.no_grad():
        model[1].bias.zero_()
        model[4].weight[0] = 0
    (plain,), (found,) = (
        random_directions(model.parameters(), 1, filter_normalized=f, vectors="scaled") for f in (False, True)
    )
    bias = model[0].bias.detach()
    torch.testing.assert_close(found[1], plain[1] * bias.norm() / plain[1].norm(), rtol=1e-12, atol=0)
    assert not found[3].any() and not found[4][0].any() and found[4][1].all()
    zeros = [torch.zeros_like(p) for p in model.parameters()]
    assert not any(t.any() for t in normalize_filters(model.parameters(), zeros))


def test_that_landscapes_of_a_network_that_is_rescaled_are_the_same() -> None:
    """With ReLU between two layers, the weights c W and V / c give the same function as W and V."""
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)).double()
    before = [plane(model, MSE, model.parameters(), examples(), how, steps=3).loss for how in ("random", "filter")]
    with torch.no_grad():
        model[0].weight.mul_(8)
        model[2].weight.div_(8)
    after = [plane(model, MSE, model.parameters(), examples(), how, steps=3).loss for how in ("random", "filter")]  # type: ignore[arg-type]
    np.testing.assert_allclose(before[1], after[1], rtol=1e-12)
    assert not np.allclose(before[0], after[0], rtol=1e-1)


def test_that_tangents_at_points_of_a_manifold_get_unit_length() -> None:
    model = rsam.nn.constrain(convolutional(), rsam.geometry.KernelSphere(), nn.Conv2d)
    expected = li_et_al(model, seed=0)  # filters of norm 1
    found = normalize_filters(model.parameters(), random_directions(model.parameters(), 1)[0])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    ball = geoopt.PoincareBall()
    points = geoopt.ManifoldParameter(0.4 * nn.functional.normalize(normal(5, 3), dim=1), manifold=ball)
    (direction,) = (random_directions([points], 1, filter_normalized=True)[0],)
    torch.testing.assert_close(ball.norm(points, direction[0]).detach(), torch.ones(5, dtype=DOUBLE))


def test_that_filters_of_half_precision_are_normalised_in_single() -> None:
    """Before, the norms were rounded to three digits."""
    layer = rsam.nn.constrain(nn.Linear(7, 40).bfloat16(), geoopt.Sphere(), "weight")
    (direction,) = random_directions([layer.weight], 1, filter_normalized=True)
    torch.testing.assert_close(direction[0].norm(dim=1), torch.ones(40), rtol=1e-6, atol=0)


def test_that_random_directions_are_of_unit_length_isotropic_and_reproducible() -> None:
    model = mixed_network()
    space, params = rsam.geometry.Product(model.parameters()), list(model.parameters())
    drawn = random_directions(params, 200, seed=1)
    assert all(float(space.norm(params, d)) == pytest.approx(1) for d in drawn[:5])
    coordinates = torch.stack(
        [torch.cat([c.flatten() for c in space.to_coordinates(params, space.lower_index(params, d))]) for d in drawn]
    )
    n = coordinates.shape[1]
    covariance = coordinates.mT @ coordinates / 200 * n
    # entries of a mean of 200 products of two nearly standard normal numbers: five standard errors
    assert float((covariance - torch.eye(n, dtype=DOUBLE)).abs().max()) < 5 * math.sqrt(2 / 200)
    again, other = random_directions(params, 1, seed=1)[0], random_directions(params, 1, seed=2)[0]
    assert torch.equal(again[0], drawn[0][0]) and not torch.equal(other[0], again[0])


@pytest.mark.parametrize("seed", [0, 1])
def test_that_directions_do_not_depend_on_weights_that_were_drawn_with_the_same_seed(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 10))
    (direction,) = random_directions(model.parameters(), 1, seed=seed)
    weights, drawn = (torch.cat([t.detach().flatten() for t in ts]) for ts in (model.parameters(), direction))
    # the cosine of independent directions has the deviation 1 / sqrt(1994) = 0.022
    assert abs(float(torch.cosine_similarity(drawn, weights, dim=0))) < 0.09


def test_that_a_seed_chooses_the_directions_of_a_plane() -> None:
    model = network()
    drawn, given = (
        plane(model, MSE, model.parameters(), examples(), directions, seed=3, steps=2).loss
        for directions in ("random", random_directions(model.parameters(), seed=3))
    )
    np.testing.assert_array_equal(drawn, given)
    assert not np.array_equal(drawn, plane(model, MSE, model.parameters(), examples(), steps=2).loss)


def test_that_bad_requests_for_directions_are_refused() -> None:
    params = list(network().parameters())
    for request, message in (
        (lambda: random_directions(params, 0), "count must be at least 1"),
        (lambda: random_directions(params, 1, filter_normalized=True, vectors="no"), "vectors must be"),  # type: ignore[arg-type]
        (lambda: normalize_filters(params, params[:2]), "a direction has 2 tensors"),
        (lambda: random_directions(params[1::2], 1, filter_normalized=True), "moves nothing, .* vectors='scaled'"),
        (lambda: trajectory_directions(params, [params]), "2 directions need 2 checkpoints"),
        (lambda: trajectory_directions(params, [params, params]), "all checkpoints are at the end point"),
        (lambda: trajectory_directions(params, [params], 0), "count must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            request()


def test_that_directions_that_are_not_tangent_are_refused_by_name() -> None:
    model = mixed_network()
    ambient = [torch.ones_like(p) for p in model.parameters()]
    with pytest.raises(ValueError, match=r"not tangent at 0\.weight \(shape \(5, 4\), Stiefel"):
        line(model, MSE, model.parameters(), examples(), ambient)
    tangents = rsam.geometry.Product(model.parameters()).project(list(model.parameters()), ambient)
    assert line(model, MSE, model.parameters(), examples(), tangents, steps=2).loss.shape == (2,)
    with pytest.raises(ValueError, match="a direction is not finite"):
        line(model, MSE, model.parameters(), examples(), [t * float("nan") for t in tangents])
    with pytest.raises(UnsupportedOperation, match=r"point \(shape \(3, 3\), Birkhoff.*has no exponential"):
        birkhoff, batch = probed(geoopt.BirkhoffPolytope(), (3, 3))
        line(birkhoff, MSE, birkhoff.parameters(), batch)


def test_that_tangents_far_out_in_hyperbolic_space_are_taken() -> None:
    """Before, their rounding, which the projection there magnifies, made them no tangents."""
    hyperboloid, radius = geoopt.Lorentz(), 6.0
    far = nn.functional.normalize(normal(3), dim=0) * math.sinh(radius)
    x = hyperboloid.projx(torch.cat((torch.zeros(1), far)).float())
    point = geoopt.ManifoldParameter(x, manifold=hyperboloid)
    case = (lambda _: point[1]), (lambda outputs, _: outputs), [point], (torch.zeros(1, 1), torch.zeros(1, 1))
    ((d,),) = random_directions([point], 1)
    assert line(*case, [d], steps=3).lengths == pytest.approx((1,), rel=1e-2)  # eps cosh(6)^2
    end = rsam.geometry.Product([point]).exponential([x], [d])
    (again,) = landscape.direction_to([point], end)
    torch.testing.assert_close(again[1:], d[1:], rtol=0, atol=1e-2 * float(d.abs().max()))
    d[0] += 0.1 * d.abs().max()
    with pytest.raises(ValueError, match="a direction is not tangent"):
        line(*case, [d])


# -- trajectories -----------------------------------------------------------------------------------------------------

#: Coordinates of checkpoints in some plane; the last is the end point.
PATH = np.array([[2.0, 0.1], [1.2, 0.9], [0.7, 0.6], [0.2, -0.1], [0.0, 0.0]])


def loss_of(model: nn.Module, values: list[Tensor]) -> float:
    loss, _ = functional(model, MSE, examples())
    with torch.no_grad():
        return float(loss(*values))


def check_path(model: nn.Module, checkpoints: list[Any], values: list[list[Tensor]]) -> landscape.Trajectory:
    """Check that coordinates of checkpoints in the plane have the checkpoints' losses, and the plane explains all."""
    found = trajectory_directions(model.named_parameters(), iter(checkpoints))
    assert found.explained_variance.sum() == pytest.approx(1, abs=1e-12)
    assert found.explained_variance[0] >= found.explained_variance[1] > 1e-3
    lengths = np.linalg.norm(PATH, axis=1)
    np.testing.assert_allclose(np.linalg.norm(found.coordinates, axis=1), lengths, atol=1e-7)
    squares = np.linalg.svd(PATH, compute_uv=False) ** 2
    np.testing.assert_allclose(found.explained_variance, squares / squares.sum(), rtol=1e-7)
    for (a, b), at in zip(found.coordinates, values, strict=True):
        ranges = (a - 1, a), (b - 1, b)
        grid = plane(model, MSE, model.parameters(), examples(), found.directions, extent=ranges, steps=2)
        assert grid.loss[1, 1] == pytest.approx(loss_of(model, at), rel=1e-8)
    return found


def test_that_a_path_in_a_plane_is_found_with_its_losses() -> None:
    model = network()
    end = [p.detach().clone() for p in model.parameters()]
    d, e = random_directions(model.parameters())
    square = [v - sum((u * w).sum() for u, w in zip(d, e, strict=True)) * u for u, v in zip(d, e, strict=True)]
    norm = math.sqrt(sum(float(v.square().sum()) for v in square))
    values = [[x + a * u + b * v / norm for x, u, v in zip(end, d, square, strict=True)] for a, b in PATH.tolist()]
    states = [dict(zip(model.state_dict(), at, strict=True)) for at in values]
    found = check_path(model, states, values)
    trained = plane(model, MSE, model.parameters(), examples(), found, steps=3)
    np.testing.assert_array_equal(trained.path, found.coordinates)
    (low, high), (bottom, top) = found.extent(0.2)
    assert trained.x.tolist()[::2] == pytest.approx([low, high]) and trained.unit == "geodesic length"
    inside = (found.coordinates > [low, bottom]) & (found.coordinates < [high, top])
    assert inside.all()


def great_circle(x: Tensor, d: Tensor, t: float) -> Tensor:
    return math.cos(t) * x + math.sin(t) * d


def test_that_a_path_on_two_great_circles_is_found_with_its_losses() -> None:
    """One weight on each of two spheres: a flat torus, of which the tangent plane is an isometric picture."""
    model = network()
    rsam.nn.constrain(model, geoopt.Sphere(), "*.weight")
    end = [p.detach().clone() for p in model.parameters()]
    tangents = [torch.zeros_like(x) for x in end]
    for i in (0, 2):  # the first rows turn
        e = normal(end[i].shape[1], seed=i)
        tangents[i][0] = nn.functional.normalize(e - (e @ end[i][0]) * end[i][0], dim=0)
    values = []
    for a, b in PATH.tolist():
        at = [x.clone() for x in end]
        for i, t in ((0, a), (2, b)):
            at[i][0] = great_circle(end[i][0], tangents[i][0], t)
        values.append(at)
    check_path(model, values, values)


def test_that_a_path_on_one_great_circle_has_one_direction() -> None:
    x, e = (nn.functional.normalize(normal(5, seed=s), dim=0) for s in (1, 2))
    point = geoopt.ManifoldParameter(x, manifold=geoopt.Sphere())
    tangent = nn.functional.normalize(e - (e @ x) * x, dim=0)
    path = [[great_circle(x, tangent, t)] for t in (1.5, 0.8, 0.3)]
    found = trajectory_directions([point], path, 1)
    assert found.explained_variance == pytest.approx([1], abs=1e-12)
    np.testing.assert_allclose(found.coordinates[:, 0], [1.5, 0.8, 0.3], rtol=1e-9)
    torch.testing.assert_close(found.directions[0][0], tangent, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match=r"in 1 directions only, not in 2; pass count=1"):
        trajectory_directions([point], path)


def test_that_directions_of_a_trajectory_are_orthonormal_in_the_metric() -> None:
    ball = geoopt.PoincareBall()
    end, *path = [0.5 * torch.tanh(normal(4, 3, seed=s)) for s in range(6)]
    point = geoopt.ManifoldParameter(end, manifold=ball)
    found = trajectory_directions([point], [[p] for p in path])
    gram = [
        [float(ball.inner(point, u, v, keepdim=True).sum()) for (v,) in found.directions] for (u,) in found.directions
    ]
    np.testing.assert_allclose(gram, np.eye(2), atol=1e-9)
    # distances of the ball, of which the plane explains a part
    total = sum(float(ball.dist(point, p).square().sum()) for p in path)
    np.testing.assert_allclose((found.coordinates**2).sum(0) / total, found.explained_variance, rtol=1e-9)


def test_that_a_checkpoint_that_does_not_fit_is_named() -> None:
    model = network()
    with pytest.raises(ValueError, match=r"checkpoint 1 has no '0\.weight'"):
        trajectory_directions(model.named_parameters(), [network(1), nn.Linear(2, 2)])
