"""That the ascents that cost less are what their names say, and cost what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.methods import METHODS
from benchmarks.methods.looksam import EVERY
from benchmarks.run import Run
from benchmarks.runs.steps import gradient_closure
from benchmarks.runs.training import prepare, train, train_model
from benchmarks.workloads.images import Images
from tests.benchmarks.training_steps import EXACT, Bowl

#: Ten steps on 50 images each, of which a quarter is 12 and an eighth 6.
TEN = Run(
    Images("digits", "tiny_cnn", label_noise=0.0, batch_size=50, examples=500), "rsam", 0, 0.05, epochs=1, rho=0.1
)
BATCHES = 10


def on_spheres(run: Run) -> Run:
    return replace(run, workload=replace(run.workload, kernels="spheres"))  # type: ignore[type-var]


def differs(one: nn.Module, other: nn.Module) -> bool:
    return any(not torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "evaluations"),
    [
        ({"part": 1 / 4}, 1 + 12 / 50),
        ({"part": 1 / 8}, 1 + 6 / 50),
        ({"every": 2}, 1 + 1 / 2),
        ({"every": 5, "part": 1 / 4}, 1 + 12 / 50 / 5),
        ({"rho": 0.0}, 1.0),
    ],
)
@pytest.mark.parametrize("method", ["rsam", "sam", "rsam_friendly", "sam_friendly"])
def test_that_an_ascent_costs_its_part_in_the_steps_that_ascend(
    method: str, change: dict[str, Any], evaluations: float
) -> None:
    row = train(
        on_spheres(replace(TEN, method=method, **change)) if "rsam" in method else replace(TEN, method=method, **change)
    )
    assert row.gradients / BATCHES == pytest.approx(evaluations)


@pytest.mark.parametrize("method", ["rsam", "sam"])
def test_that_a_late_ascent_begins_after_its_part_of_the_epochs(method: str) -> None:
    late = replace(TEN, method=method, epochs=5, late=0.6)
    assert train(late).gradients == pytest.approx(3 * BATCHES + 2 * 2 * BATCHES)
    # until then it is the method without an ascent
    assert train(late).curves["loss"][:3] == train(replace(late, late=0.0, rho=0.0)).curves["loss"][:3]
    assert train(late).curves["loss"][4] != train(replace(late, late=0.0, rho=0.0)).curves["loss"][4]


def test_that_a_method_without_a_radius_cannot_begin_late() -> None:
    with pytest.raises(ValueError, match="no rho"):
        train(replace(TEN, method="sgd", late=0.5))


@pytest.mark.parametrize("method", ["rsam", "sam"])
def test_that_a_part_is_that_of_the_library(method: str) -> None:
    run = replace(TEN, method=method, part=1 / 4, every=2)
    _, ours = train_model(run)
    problem = prepare(run)
    theirs = problem.model
    optimizer = METHODS[method].build(theirs, run)
    for i, batch in enumerate(problem.batches(0)):
        for group in optimizer.param_groups:
            group["lr"] = run.lr * problem.schedule(i / problem.steps)
        closures = rsam.optim.partial_closures(
            optimizer, lambda x, y: cross_entropy(theirs(x), y), batch, fraction=1 / 4
        )
        optimizer.step(*closures)
    assert not differs(ours, theirs)
    assert differs(ours, train_model(replace(run, every=1))[1])


# -- directions ------------------------------------------------------------------------------------------------------


def watched(name: str, steps: int, **options: float) -> tuple[list[Tensor], Any]:
    """Return the points at which a method evaluates the gradient in the bowl, and the optimizer."""
    bowl, points = Bowl(), []
    optimizer = METHODS[name].build(bowl, replace(TEN, weight_decay=0.0, **options))

    def closure() -> Tensor:
        points.append(bowl.position())
        optimizer.zero_grad()
        loss = bowl.loss()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return points, optimizer


def test_that_friendly_sam_ascends_across_the_momentum() -> None:
    points, _ = watched("sam_friendly", 2, lr=0.1, rho=0.2)
    start, up, second, across = points
    slope = Bowl.MATRIX @ start
    torch.testing.assert_close(up, start + 0.2 * slope / slope.norm(), **EXACT)  # there is no momentum yet
    momentum, slope = Bowl.MATRIX @ up, Bowl.MATRIX @ second
    ascent = across - second
    assert float(ascent.norm()) == pytest.approx(0.2, rel=1e-12)
    assert float(ascent @ momentum) == pytest.approx(0, abs=1e-12)
    assert float(ascent @ slope) > 0
    # nothing but gradient and momentum
    plane, _ = torch.linalg.qr(torch.stack([slope, momentum], 1))
    torch.testing.assert_close(plane @ (plane.mT @ ascent), ascent, **EXACT)


def test_that_momentum_sam_evaluates_once_along_the_momentum() -> None:
    points, _ = watched("sam_momentum", 2, lr=0.1, rho=0.2)
    start, up = points
    momentum = Bowl.MATRIX @ start
    expected = start - 0.1 * momentum + 0.2 * momentum / momentum.norm()
    torch.testing.assert_close(up, expected, **EXACT)


def test_that_looksam_reuses_what_the_ascent_added() -> None:
    points, _ = watched("peer_looksam", EVERY + 1, lr=0.02, rho=0.2, momentum=0.0)
    assert len(points) == EVERY + 1 + 2  # it ascends in the first step and after ten more
    tensors = [slice(0, 3), slice(3, 4)]

    def per_tensor(function: Callable[[Tensor, Tensor], Tensor], one: Tensor, other: Tensor) -> Tensor:
        return torch.cat([function(one[part], other[part]) for part in tensors])

    slope = Bowl.MATRIX @ points[0]
    torch.testing.assert_close(points[1], points[0] + 0.2 * slope / slope.norm(), rtol=0, atol=1e-7)
    there = Bowl.MATRIX @ points[1]
    beside = per_tensor(lambda s, g: s - (s @ g) / (g @ g) * g, there, slope)
    position = points[0] - 0.02 * there
    for point in points[2 : EVERY + 1]:
        # the library computes the norm of the ascent in single precision
        torch.testing.assert_close(point, position, rtol=0, atol=1e-6)
        slope = Bowl.MATRIX @ position
        reused = per_tensor(lambda g, v: 0.7 * g.norm() * v / (v.norm() + 1e-8), slope, beside)
        position = position - 0.02 * (slope + reused)


@pytest.mark.parametrize("name", ["sam_friendly", "rsam_friendly", "peer_looksam"])
def test_that_batch_statistics_are_those_of_the_first_pass(name: str) -> None:
    problem, twin = (prepare(replace(TEN, method=name)) for _ in range(2))
    images, labels = next(iter(problem.batches(0)))
    twin.model(images)
    optimizer = METHODS[name].build(problem.model, replace(TEN, method=name))
    optimizer.step(gradient_closure(problem.model, optimizer, images, labels))
    for key, expected in twin.model.named_buffers():
        if not key.endswith("num_batches_tracked"):  # which the peer's recipe counts twice
            assert torch.equal(problem.model.get_buffer(key), expected), key
