"""That each method is what its name says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from benchmarks.methods import METHODS
from benchmarks.runs.steps import gradient_closure
from benchmarks.studies.images.contestants import CONTESTANTS
from tests.benchmarks.training_steps import EXACT, Bowl, on, prepared, run_of, steps


@pytest.mark.parametrize("name", CONTESTANTS)
def test_that_a_step_evaluates_as_many_gradients_as_it_says(name) -> None:
    # the first step of a penalty by differences evaluates the loss once more, to see that it repeats
    first, all_four = (steps(run_of(name), count)[1] for count in (1, 4))
    assert all_four - first == 3 * METHODS[CONTESTANTS[name].method].gradients


def assert_kernels_live(model: nn.Module, manifold: str) -> None:
    kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    assert kernels
    for p in model.parameters():
        constrained = manifold != "plain" and any(p is kernel for kernel in kernels)
        assert hasattr(p, "manifold") == constrained
    for kernel in kernels:
        rows = kernel.detach().flatten(1)
        wide = rows if len(rows) <= rows.shape[1] else rows.mT
        unit = torch.allclose(rows.norm(dim=1), torch.ones(len(rows)), atol=1e-5)
        orthonormal = torch.allclose(wide @ wide.mT, torch.eye(len(wide)), atol=1e-5)
        assert (unit, orthonormal) == {
            "plain": (False, False),
            "spheres": (True, False),
            "stiefel": (len(rows) <= rows.shape[1], True),  # more filters than numbers per filter cannot be orthogonal
        }[manifold]


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("name", CONTESTANTS)
def test_that_kernels_live_where_the_method_says(name, count) -> None:
    # its first convolution has 16 filters of 9 numbers each
    model, _ = steps(on(run_of(name), model="small_cnn"), count)
    assert_kernels_live(model, CONTESTANTS[name].kernels)


@pytest.mark.parametrize("name", CONTESTANTS)
def test_that_kernels_of_signals_live_there_too(name) -> None:
    run = on(run_of(name), dataset="mnist1d", model="cnn_1d")
    model, _ = steps(run, 1)
    assert_kernels_live(model, CONTESTANTS[name].kernels)


def test_that_methods_can_be_told_apart() -> None:
    for registry in (METHODS, CONTESTANTS):
        assert [one.name for one in registry.values()] == list(registry)
        assert len({one.label for one in registry.values()}) == len(registry)


@pytest.mark.parametrize("name", CONTESTANTS)
def test_that_batch_statistics_are_those_of_one_evaluation(name) -> None:
    data, twin, _ = prepared(run_of(name))
    twin(data.train_images[:64])
    model, _ = steps(run_of(name), 1)
    expected = dict(twin.named_buffers())
    for key, actual in model.named_buffers():
        # the peer's recipe counts the second batch, though it does not average over it
        if not (name == "peer_sam" and key.endswith("num_batches_tracked")):
            assert torch.equal(actual, expected[key]), key


def test_that_a_peer_s_sam_takes_the_same_steps() -> None:
    plain = {"model": "small_plain_cnn"}
    ours, _ = steps(on(run_of("sam"), **plain), 10)
    peer, _ = steps(on(run_of("peer_sam"), **plain), 10)
    for mine, theirs in zip(ours.parameters(), peer.parameters(), strict=True):
        # single precision, ten steps; the peer adds the norm of the perturbation in another order
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_that_sgd_has_momentum_and_weight_decay() -> None:
    start, matrix = Bowl().position(), Bowl.MATRIX
    velocity = matrix @ start + 0.01 * start
    middle = start - 0.1 * velocity
    velocity = 0.9 * velocity + matrix @ middle + 0.01 * middle
    actual = Bowl().step("sgd", 2, lr=0.1, momentum=0.9, weight_decay=0.01)
    torch.testing.assert_close(actual, middle - 0.1 * velocity, **EXACT)


def test_that_adamw_decays_apart_from_the_gradient() -> None:
    start = Bowl().position()
    slope = Bowl.MATRIX @ start
    # Adam's first step divides the gradient by its own size
    expected = start * (1 - 0.1 * 0.3) - 0.1 * slope / (slope.abs() + 1e-8)
    torch.testing.assert_close(Bowl().step("adamw", lr=0.1, weight_decay=0.3), expected, **EXACT)


def test_that_sam_steps_with_the_gradient_uphill() -> None:
    start, matrix = Bowl().position(), Bowl.MATRIX
    slope = matrix @ start
    uphill = start + 0.2 * slope / slope.norm()  # Foret et al. 2021, eq. 2
    expected = start - 0.1 * (matrix @ uphill + 0.01 * start)
    torch.testing.assert_close(Bowl().step("sam", lr=0.1, rho=0.2, weight_decay=0.01), expected, **EXACT)
    # the peer adds 1e-12 to the norm, which it sums in single precision
    actual = Bowl().step("peer_sam", lr=0.1, rho=0.2, weight_decay=0.01)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-7)


def test_that_asam_measures_the_ascent_in_units_of_each_weight() -> None:
    start, matrix = Bowl().position(), Bowl.MATRIX
    slope = matrix @ start
    scale = start.abs()  # Kwon et al. 2021, Algorithm 1, with the normalisation operator of weights one by one
    uphill = start + 0.2 * scale**2 * slope / (scale * slope).norm()
    expected = start - 0.1 * (matrix @ uphill + 0.01 * start)
    torch.testing.assert_close(Bowl().step("asam", lr=0.1, rho=0.2, weight_decay=0.01), expected, **EXACT)


def on_sphere(weights: Tensor) -> Tensor:
    return weights / weights.norm()


def tangent(point: Tensor, vector: Tensor) -> Tensor:
    return vector - (point @ vector) * point


def descend(start: Tensor, covector: Tensor, lr: float, decay: float) -> Tensor:
    """Take a step of Riemannian SGD from a filter on the sphere and a plain bias."""
    weights, bias = start[:3], start[3:]
    moved = on_sphere(weights - lr * tangent(weights, covector[:3]))
    return torch.cat([moved, bias - lr * (covector[3:] + decay * bias)])


def test_that_riemannian_sgd_descends_along_the_sphere_and_decays_the_bias() -> None:
    start = Bowl().position()
    expected = descend(start, Bowl.MATRIX @ start, 0.1, 0.3)
    torch.testing.assert_close(Bowl().step("riemannian_sgd", lr=0.1, weight_decay=0.3), expected, **EXACT)


def test_that_riemannian_adam_decays_the_bias_only_and_apart_from_its_gradient() -> None:
    start = Bowl().position()
    slope = Bowl.MATRIX @ start
    along = tangent(start[:3], slope[:3])
    weights = on_sphere(start[:3] - 0.1 * along / (along.norm() + 1e-8))
    bias = start[3:] * (1 - 0.1 * 0.3) - 0.1 * slope[3:] / (slope[3:].abs() + 1e-8)
    actual = Bowl().step("riemannian_adam", lr=0.1, weight_decay=0.3)
    torch.testing.assert_close(actual, torch.cat([weights, bias]), **EXACT)


@pytest.mark.parametrize("name", ["riemannian_adam", "rsam_adam"])
def test_that_adams_first_moment_decays_as_the_run_says(name) -> None:
    # three numbers, plain: nothing is on a sphere
    points, slopes = [torch.tensor([1.0, -2.0, 3.0]).double()], []
    model = nn.Module()
    model.point = nn.Parameter(points[0].clone())
    run = replace(run_of("riemannian_adam"), method=name, lr=0.1, beta=0.5, rho=0.0, weight_decay=0.0)
    optimizer = METHODS[name].build(model, run)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model.point**4).sum() / 4
        loss.backward()
        return loss

    for _ in range(2):
        slopes.append(points[-1] ** 3)
        optimizer.step(closure)
        points.append(model.point.detach().clone())
    # moments of two gradients without the bias of their zero start (Kingma and Ba 2015)
    first = (0.5 * 0.5 * slopes[0] + 0.5 * slopes[1]) / (1 - 0.5**2)
    second = (0.999 * 0.001 * slopes[0] ** 2 + 0.001 * slopes[1] ** 2) / (1 - 0.999**2)
    torch.testing.assert_close(points[2], points[1] - 0.1 * first / (second.sqrt() + 1e-8), **EXACT)


def transported(start: Tensor, end: Tensor, gradient: Tensor) -> Tensor:
    """Rotate the tangential part of a gradient at the end back to the start, along the great circle."""
    cosine = start @ end
    across = (start - cosine * end) / (1 - cosine**2).sqrt()
    turn = torch.outer(across, end) - torch.outer(end, across)
    return torch.matrix_exp(torch.acos(cosine) * turn) @ tangent(end, gradient)


def pulled_back(start: Tensor, ascent: Tensor) -> Tensor:
    """Return the gradient of the loss after an ascent, in the ascent."""
    ascent = ascent.clone().requires_grad_()
    end = torch.cat([on_sphere(start[:3] + ascent[:3]), start[3:] + ascent[3:]])
    (gradient,) = torch.autograd.grad(end @ Bowl.MATRIX @ end / 2, ascent)
    return gradient


@pytest.mark.parametrize("name", ["rsam", "rsam_pullback", "rsam_project", "ambient_sam"])
def test_that_the_ways_to_the_perturbed_gradient_are_as_named(name) -> None:
    start, matrix = Bowl().position(), Bowl.MATRIX
    slope = matrix @ start
    if name == "ambient_sam":
        covector = matrix @ (start + 0.4 * slope / slope.norm())
    else:
        along = torch.cat([tangent(start[:3], slope[:3]), slope[3:]])
        ascent = 0.4 * along / along.norm()  # one norm over filter and bias
        end = torch.cat([on_sphere(start[:3] + ascent[:3]), start[3:] + ascent[3:]])
        covector = matrix @ end
        if name == "rsam":
            covector[:3] = transported(start[:3], end[:3], covector[:3])
        elif name == "rsam_pullback":
            covector = pulled_back(start, ascent)
    expected = descend(start, covector, 0.1, 0.3)
    torch.testing.assert_close(Bowl().step(name, lr=0.1, rho=0.4, weight_decay=0.3), expected, **EXACT)


@pytest.mark.parametrize("name", ["riemannian_sgd", "rsam", "ambient_sam"])
def test_that_methods_on_spheres_have_momentum(name) -> None:
    first = Bowl().step(name, 1, lr=0.1, rho=0.1, momentum=0.9)
    torch.testing.assert_close(first, Bowl().step(name, 1, lr=0.1, rho=0.1), **EXACT)
    # the bias is plain: without decay the second step differs by 0.9 times the first one
    second = Bowl().step(name, 2, lr=0.1, rho=0.1, momentum=0.9)[3] - first[3]
    without = Bowl().step(name, 2, lr=0.1, rho=0.1)[3] - first[3]
    torch.testing.assert_close(second - without, 0.9 * (first[3] - 0.8), **EXACT)


def test_that_the_peer_s_learning_rate_follows_a_schedule() -> None:
    weights = {}
    for name in ("sam", "peer_sam"):
        data, model, optimizer = prepared(on(run_of(name), model="small_plain_cnn"))
        schedule = CosineAnnealingLR(optimizer, T_max=3)
        closure = gradient_closure(model, optimizer, data.train_images[:64], data.train_labels[:64])
        weights[name] = []
        for _ in range(4):
            optimizer.step(closure)
            schedule.step()
            weights[name].append([p.detach().clone() for p in model.parameters()])
    for ours, theirs in zip(weights["sam"], weights["peer_sam"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)  # tolerances as above
    last, beyond = weights["peer_sam"][2:]
    assert all(torch.equal(p, q) for p, q in zip(last, beyond, strict=True))  # the learning rate is 0


@pytest.mark.parametrize("name", ["sam", "asam", "rsam", "rsam_pullback", "rsam_project", "ambient_sam", "peer_sam"])
def test_that_there_is_nowhere_to_ascend_to_from_a_stationary_point(name) -> None:
    bowl = Bowl()
    run = replace(run_of(name), weight_decay=0.0)
    optimizer = METHODS[run.method].build(bowl, run)
    start = bowl.position()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0 * bowl.loss()  # flat everywhere
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(bowl.position(), start, **EXACT)
