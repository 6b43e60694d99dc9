"""That hierarchies are embedded by the right edges, by the paper's loss, in both models of hyperbolic space."""

from __future__ import annotations

import geoopt
import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.data.wordnet import Hierarchy, load_hierarchy
from benchmarks.workloads.hyperbolic import embedding as module
from benchmarks.workloads.hyperbolic.distances import ball_distance, hyperboloid_distance, hyperboloid_distances
from benchmarks.workloads.hyperbolic.embedding import Embedded, split
from benchmarks.workloads.manifolds import MANIFOLDS, worst_violation
from benchmarks.workloads.problem import Problem

#: A binary tree whose root is the last node, so that node 0 has ancestors.
TREE = Hierarchy(("x",) * 31, tuple((30 - (30 - i - 1) // 2,) if i < 30 else () for i in range(31)))
BOTH = pytest.mark.parametrize("manifold", ["poincare", "lorentz"])


@pytest.fixture(autouse=True)
def tree(monkeypatch) -> None:
    """Provide a hierarchy without a file, with batches of 16."""
    monkeypatch.setattr(module, "load_hierarchy", lambda name: TREE if name == "tree" else load_hierarchy(name))
    monkeypatch.setitem(module.BATCH, "tree", 16)


def made(space: str, size: int = 3, seed: int = 0, heldout: str = "test", fraction: float = 0.0) -> Problem:
    return Embedded("tree", space, size, fraction).prepare(seed, heldout)  # type: ignore[arg-type]


def spread(problem: Problem, seed: int = 0) -> np.ndarray:
    """Move points in the ball, or their images on the hyperboloid, to random positions; return those in the ball."""
    points = problem.model.points
    hyperboloid = isinstance(points.manifold, geoopt.Lorentz)
    ball = np.random.default_rng(seed).uniform(-0.5, 0.5, (len(points), points.shape[1] - hyperboloid))
    square = (ball**2).sum(1, keepdims=True)
    image = np.concatenate([1 + square, 2 * ball], 1) / (1 - square) if hyperboloid else ball
    with torch.no_grad():
        points.copy_(torch.from_numpy(image))
    return ball


def ball_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute distances by eq. 1 of Nickel and Kiela."""
    rest = (1 - (x**2).sum(-1)) * (1 - (y**2).sum(-1))
    return np.arccosh(1 + 2 * ((x - y) ** 2).sum(-1) / rest)


def pairs(edges: Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, edges.tolist()))


def test_that_nothing_is_held_out_for_reconstruction() -> None:
    edges = TREE.edges
    for heldout in ("test", "validation"):
        actual = split(edges, 0.0, heldout, seed=3)
        assert all(torch.equal(part, edges) for part in (actual.train, actual.scored, actual.known))


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_that_edges_are_held_out_and_each_node_keeps_one(fraction) -> None:
    edges = load_hierarchy("mammals").edges
    test, validation = (split(edges, fraction, heldout, seed=1) for heldout in ("test", "validation"))
    assert len(test.scored) == round(fraction * 6542)
    assert len(validation.scored) == round(0.1 * (6542 - len(test.scored)))
    for actual, known in ((test, edges), (validation, test.train)):
        assert not pairs(actual.train) & pairs(actual.scored)
        assert pairs(actual.train) | pairs(actual.scored) == pairs(actual.known) == pairs(known)
        assert len(actual.train) + len(actual.scored) == len(actual.known)
        assert set(actual.train[:, 0].tolist()) == set(edges[:, 0].tolist())
    assert not pairs(validation.known) & pairs(test.scored)
    again = split(edges, fraction, "validation", seed=1)
    assert torch.equal(again.scored, validation.scored) and torch.equal(again.train, validation.train)
    other = split(edges, fraction, "validation", seed=2)
    assert pairs(other.scored) != pairs(validation.scored)


def test_that_no_seed_sees_test_edges_of_any_case_in_tuning() -> None:
    edges = load_hierarchy("mammals").edges
    test = {fraction: pairs(split(edges, fraction, "test", seed=0).scored) for fraction in (0.1, 0.5)}
    assert test[0.1] < test[0.5]  # the larger part contains the smaller, whose settings it shares
    for seed in (1, 1000):
        assert pairs(split(edges, 0.1, "test", seed).scored) == test[0.1]
        assert not pairs(split(edges, 0.1, "validation", seed).known) & test[0.1]


def test_that_no_more_is_held_out_than_nodes_can_spare() -> None:
    actual = split(TREE.edges, 0.9, "test", seed=0)
    assert actual.train[:, 0].tolist() == list(range(30))  # one edge per node


@pytest.mark.parametrize("heldout", ["test", "validation"])
def test_that_negatives_are_the_draws_that_are_not_known_from_training(heldout) -> None:
    edges = split(TREE.edges, 0.3, heldout, seed=4)
    batches = list(made("poincare", seed=4, fraction=0.3, heldout=heldout).batches(2))
    generator = torch.Generator().manual_seed(1_000_003 * 4 + 2)
    order = torch.randperm(len(edges.train), generator=generator)
    train, unseen = pairs(edges.train), 0
    for chosen, (lines, targets) in zip(order.split(16), batches, strict=True):
        drawn = torch.randint(31, (len(chosen), module.NEGATIVES), generator=generator)
        assert torch.equal(lines[:, :2], edges.train[chosen]) and not targets.any()
        for (u, _, *actual), draw in zip(lines.tolist(), drawn.tolist(), strict=True):
            assert actual == [-1 if w == u or (u, w) in train else w for w in draw]
            unseen += sum((u, w) in pairs(TREE.edges) for w in actual)
    assert unseen  # held-out edges may be drawn as negatives, since avoiding them would reveal them


def test_that_batches_are_the_same_for_every_method_and_cover_the_edges_once() -> None:
    first, second = (list(Embedded("mammals", "lorentz", 2).prepare(0, "test").batches(3)) for _ in range(2))
    assert [len(lines) for lines, _ in first] == [512] * 12 + [6542 - 12 * 512]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True))
    lines = torch.cat([lines for lines, _ in first])
    assert sorted(lines[:, :2].tolist()) == load_hierarchy("mammals").edges.tolist()
    problem = made("lorentz")
    epochs = [torch.cat([lines for lines, _ in problem.batches(epoch)]) for epoch in (0, 0, 1)]
    assert torch.equal(epochs[0], epochs[1]) and not torch.equal(epochs[0], epochs[2])


@BOTH
def test_that_the_loss_is_eq_5(manifold) -> None:
    problem = made(manifold)
    ball = spread(problem)
    lines, targets = next(iter(problem.batches(0)))
    losses = []
    for u, v, *negatives in lines.tolist():
        others = [v] + [w for w in negatives if w >= 0]
        weights = np.exp(-ball_distances(ball[u], ball[others]))
        losses.append(-np.log(weights[0] / weights.sum()))
    assert (lines < 0).any()
    assert float(problem.loss(problem.model(lines), targets).detach()) == pytest.approx(np.mean(losses), rel=1e-9)


@BOTH
def test_that_distances_are_hyperbolic_and_the_same_in_both_models(manifold) -> None:
    problem = made(manifold)
    ball = spread(problem)
    nodes = torch.tensor([0, 7, 30])
    expected = ball_distances(ball[nodes][:, None], ball[None])
    # in both models rounding makes the distance of a point to itself as large as the root of the precision
    np.testing.assert_allclose(problem.model.distances(nodes).detach(), expected, rtol=1e-9, atol=1e-7)


@BOTH
def test_that_points_start_near_the_origin_on_their_manifold(manifold) -> None:
    problem = made(manifold, size=5)
    points = problem.model.points.detach()
    assert points.shape == (31, 5 + (manifold == "lorentz")) and points.dtype == torch.float64
    assert 5e-4 < points[:, -5:].abs().max() <= 1e-3 and len(points.unique(dim=0)) == 31
    assert worst_violation(problem.model) < 1e-4


@BOTH
def test_that_second_derivatives_are_finite_and_right_where_draws_were_no_negatives(manifold) -> None:
    problem = made(manifold)
    spread(problem)
    points = problem.model.points
    lines = torch.tensor([[0, 14, -1, 5, -1], [0, 22, -1, -1, -1], [3, 16, 0, -1, 9]])
    targets = torch.zeros(3, dtype=torch.long)
    direction = torch.from_numpy(np.random.default_rng(1).normal(size=points.shape))

    def gradient(**options) -> Tensor:
        return torch.autograd.grad(problem.loss(problem.model(lines), targets), points, **options)[0]

    product = torch.autograd.grad((gradient(create_graph=True) * direction).sum(), points)[0]
    assert product.isfinite().all() and product.abs().max() > 0.01
    step, sides = 1e-5, []
    for sign in (1, -2):  # to that point, and from there to the other side
        with torch.no_grad():
            points.add_(sign * step * direction)
        sides.append(gradient())
    # central differences have errors of step^2 and of rounding / step, about 1e-10 each
    torch.testing.assert_close(product, (sides[0] - sides[1]) / (2 * step), rtol=1e-6, atol=1e-7)


def test_that_scores_are_of_the_edges_held_out(monkeypatch) -> None:
    monkeypatch.setattr(module, "ranking", lambda distances, nodes, scored, known: (nodes, scored, known))
    nodes, scored, known = made("poincare", seed=2, fraction=0.3, heldout="validation").scores()
    expected = split(TREE.edges, 0.3, "validation", seed=2)
    assert nodes == 31 and torch.equal(scored, expected.scored) and torch.equal(known, expected.known)


def test_that_geoopt_s_distance_in_the_ball_ends_where_ours_goes_on() -> None:
    """Defect of geoopt 0.5.1: ``dist`` is at most 16.8, and constant beyond, for points that its clipping allows."""
    ball = geoopt.PoincareBall()
    far = torch.tensor([[1 - 1e-5, 0.0], [-(1 - 1e-5), 0.0]], dtype=torch.float64, requires_grad=True)
    theirs, ours = ball.dist(far[0], far[1]), ball_distance(far[0], far[1])
    # twice the distance from the origin, 2 artanh(r), to the precision of 1 - r^2
    assert float(ours.detach()) == pytest.approx(4 * np.arctanh(1 - 1e-5), rel=1e-9)
    assert float(theirs.detach()) < 17
    assert torch.autograd.grad(theirs, far)[0].abs().max() == 0
    assert torch.autograd.grad(ours, far)[0].abs().max() > 1


@pytest.mark.parametrize("k", [1.0, 2.0])
def test_that_geoopt_s_distance_on_the_hyperboloid_loses_the_digits_that_ours_keeps(k) -> None:
    """Defect of geoopt 0.5.1: ``dist`` has no right digit for close points 20 away from the origin."""
    manifold = geoopt.Lorentz(torch.tensor(k, dtype=torch.float64))

    def at(radius: float, angle: float) -> Tensor:
        r, a = torch.tensor([radius, angle], dtype=torch.float64)
        return k**0.5 * torch.stack([r.cosh(), r.sinh() * a.cos(), r.sinh() * a.sin()])

    start, turned, further = at(20.0, 0.0), at(20.0, 1e-8), at(21.0, 0.0)
    # sinh(d / 2) = sinh(r) sin(a / 2) for two points equally far out, and the difference of radii for two points on
    # a line; both up to some roundings of coordinates of size 2.4e8, about 5e-8
    expected = k**0.5 * torch.tensor([2 * np.arcsinh(np.sinh(20) * np.sin(0.5e-8)), 1.0], dtype=torch.float64)
    others = torch.stack([turned, further])
    torch.testing.assert_close(hyperboloid_distance(start, others, manifold.k), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(hyperboloid_distances(start[None], others, manifold.k)[0], expected, rtol=1e-6, atol=0)
    assert ((manifold.dist(start, others) - expected).abs() > 0.1 * expected).all()


@pytest.mark.parametrize(("length", "of_geoopt"), [(0.01, 3.01), (1.0, 6.1), (2.0, 12.2), (4.0, 12.2)])
def test_that_long_steps_of_geoopt_s_ball_end_at_its_border_and_ours_where_they_should(length, of_geoopt) -> None:
    # outwards from a point at distance 3 from the origin, where geoopt's retraction is straight in coordinates
    radius = torch.tensor(1.5, dtype=torch.float64).tanh()
    x = torch.stack([radius, 0 * radius])
    step = length * (1 - radius**2) / 2 * torch.eye(2, dtype=torch.float64)[0]
    origin = torch.zeros(2, dtype=torch.float64)
    ours, theirs = MANIFOLDS["poincare"]().retr(x, step), geoopt.PoincareBall().retr(x, step)
    assert ball_distance(origin, ours).item() == pytest.approx(3 + length, rel=1e-9)
    assert ball_distance(origin, theirs).item() == pytest.approx(of_geoopt, abs=0.01)
