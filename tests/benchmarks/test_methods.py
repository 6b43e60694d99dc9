"""That each method is what its name says."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

import rsam
from benchmarks.methods import METHODS
from benchmarks.methods.ambient import AmbientSAM
from benchmarks.models import MODELS
from benchmarks.runs.configuration import Run
from benchmarks.runs.training import gradient_closure, prepare

RUN = Run("", 0, lr=0.05, dataset="digits", model="tiny_cnn", label_noise=0.0)


def run_of(name: str) -> Run:
    knobs = {"rho": 0.1, "penalty": 1e-3, "weight_decay": 5e-4}
    knob = METHODS[name].knob
    return replace(RUN, method=name, **{knob: knobs[knob]})


def steps(run: Run, count: int) -> tuple[nn.Module, int]:
    """The network after some steps on the first batch, and how often it was evaluated."""
    data, model, optimizer = prepare(run)
    objective = METHODS[run.method].objective(model, run)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(count):
        optimizer.step(gradient_closure(model, optimizer, data.train_images[:64], data.train_labels[:64], objective))
    return model, len(passes)


@pytest.mark.parametrize("name", METHODS)
def test_that_a_step_evaluates_as_many_gradients_as_it_says(name) -> None:
    assert steps(run_of(name), 3)[1] == 3 * METHODS[name].gradients


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
            "stiefel": (len(rows) <= rows.shape[1], True),  # more filters than numbers in each are not orthogonal
        }[manifold]


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("name", METHODS)
def test_that_kernels_live_where_the_method_says(name, count) -> None:
    # its first convolution has more filters, 16, than numbers in each, 9
    model, _ = steps(replace(run_of(name), model="small_cnn"), count)
    assert_kernels_live(model, METHODS[name].manifold)


@pytest.mark.parametrize("name", METHODS)
def test_that_kernels_of_signals_live_there_too(name) -> None:
    torch.manual_seed(0)
    model = MODELS["cnn_1d"]((1, 40), 10)
    optimizer = METHODS[name].build(model, run_of(name))
    signals, labels = torch.randn(20, 1, 40), torch.arange(20) % 10
    optimizer.step(gradient_closure(model, optimizer, signals, labels, METHODS[name].objective(model, run_of(name))))
    assert_kernels_live(model, METHODS[name].manifold)


def test_that_methods_can_be_told_apart() -> None:
    assert [method.name for method in METHODS.values()] == list(METHODS)
    assert len({method.label for method in METHODS.values()}) == len(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_that_batch_statistics_are_those_of_one_evaluation(name) -> None:
    data, twin, _ = prepare(run_of(name))
    twin(data.train_images[:64])
    model, _ = steps(run_of(name), 1)
    expected = dict(twin.named_buffers())
    for key, found in model.named_buffers():
        # the peer's recipe counts the second batch, though it does not average over it
        if not (name == "peer_sam" and key.endswith("num_batches_tracked")):
            assert torch.equal(found, expected[key]), key


def test_that_a_peer_s_sam_takes_the_same_steps() -> None:
    plain = {"model": "small_plain_cnn"}
    ours, _ = steps(replace(run_of("sam"), **plain), 10)
    peer, _ = steps(replace(run_of("peer_sam"), **plain), 10)
    for mine, theirs in zip(ours.parameters(), peer.parameters(), strict=True):
        # single precision, ten steps; they add the perturbation's norm in another order
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_that_the_ambient_ascent_is_sam_on_plain_weights() -> None:
    data, twin, _ = prepare(run_of("sgd"))
    sam, _ = steps(replace(run_of("sam"), weight_decay=0.0), 5)
    optimizer = AmbientSAM(twin.parameters(), twin, rho=0.1, lr=RUN.lr, momentum=RUN.momentum)
    for _ in range(5):
        optimizer.step(gradient_closure(twin, optimizer, data.train_images[:64], data.train_labels[:64]))
    for mine, theirs in zip(twin.parameters(), sam.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    for mine, theirs in zip(twin.buffers(), sam.buffers(), strict=True):  # of the first passes only
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_that_the_ambient_ascent_leaves_the_sphere_and_the_weights_do_not() -> None:
    x = rsam.nn.constrain(nn.Linear(3, 1, bias=False), rsam.geometry.KernelSphere())
    slope = torch.tensor([[1.0, 2.0, 2.0]])
    start, seen = x.weight.detach().clone(), []
    optimizer = AmbientSAM(x.parameters(), x, rho=0.3, lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        seen.append(x.weight.detach().clone())
        loss = (x.weight * slope).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(seen[0], start)
    torch.testing.assert_close(seen[1], start + 0.3 * slope / 3)  # the slope's norm is 3
    torch.testing.assert_close(x.weight.norm(), torch.tensor(1.0))
    assert not torch.equal(x.weight, start)


def test_that_an_exception_in_the_ambient_ascent_leaves_the_weights() -> None:
    data, model, optimizer = prepare(run_of("ambient_sam"))
    closure = gradient_closure(model, optimizer, data.train_images[:64], data.train_labels[:64])
    before = [p.detach().clone() for p in model.parameters()]
    calls = []

    def failing() -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise ArithmeticError
        return closure()

    with pytest.raises(ArithmeticError):
        optimizer.step(failing)
    for p, copy in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, copy)


class Bowl(nn.Module):
    """One filter and its bias, with a loss that is quadratic in their four numbers."""

    MATRIX = torch.tensor(
        [[3.0, 0.5, -0.4, 0.7], [0.5, 1.0, 0.3, -0.2], [-0.4, 0.3, 2.0, 0.6], [0.7, -0.2, 0.6, 1.5]]
    ).double()

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(1, 1, 3).double()
        with torch.no_grad():
            self.filter.weight.copy_(torch.tensor([[[2.0, -2.0, 1.0]]]).double() / 3)  # on the sphere already
            self.filter.bias.fill_(0.8)

    def position(self) -> Tensor:
        """The four numbers, weights first."""
        return torch.cat([p.detach().flatten() for p in self.parameters()]).as_subclass(Tensor)

    def loss(self) -> Tensor:
        numbers = torch.cat([p.flatten() for p in self.parameters()])
        return numbers @ self.MATRIX @ numbers / 2

    def step(self, name: str, count: int = 1, **options: float) -> Tensor:
        """Where some steps of a method lead."""
        run = replace(RUN, method=name, **{"momentum": 0.0, "weight_decay": 0.0, **options})
        optimizer, objective = METHODS[name].build(self, run), METHODS[name].objective(self, run)

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = objective(self.loss)
            value.backward()
            return value

        for _ in range(count):
            optimizer.step(closure)
        return self.position()


# closed forms and steps both round in double precision
EXACT = {"rtol": 0.0, "atol": 1e-12}


def test_that_sgd_has_momentum_and_weight_decay() -> None:
    start, matrix = Bowl().position(), Bowl.MATRIX
    velocity = matrix @ start + 0.01 * start
    middle = start - 0.1 * velocity
    velocity = 0.9 * velocity + matrix @ middle + 0.01 * middle
    found = Bowl().step("sgd", 2, lr=0.1, momentum=0.9, weight_decay=0.01)
    torch.testing.assert_close(found, middle - 0.1 * velocity, **EXACT)


def test_that_adamw_decays_apart_from_the_gradient() -> None:
    start = Bowl().position()
    slope = Bowl.MATRIX @ start
    # the first step divides the gradient by its own size
    expected = start * (1 - 0.1 * 0.3) - 0.1 * slope / (slope.abs() + 1e-8)
    torch.testing.assert_close(Bowl().step("adamw", lr=0.1, weight_decay=0.3), expected, **EXACT)


def test_that_sam_steps_with_the_gradient_uphill() -> None:
    start, matrix = Bowl().position(), Bowl.MATRIX
    slope = matrix @ start
    uphill = start + 0.2 * slope / slope.norm()  # Foret et al. 2021, eq. 2
    expected = start - 0.1 * (matrix @ uphill + 0.01 * start)
    torch.testing.assert_close(Bowl().step("sam", lr=0.1, rho=0.2, weight_decay=0.01), expected, **EXACT)
    # the peer adds 1e-12 to the norm, which it sums in single precision
    found = Bowl().step("peer_sam", lr=0.1, rho=0.2, weight_decay=0.01)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


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
    """A step of Riemannian SGD from a filter on the sphere and a plain bias."""
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
    found = Bowl().step("riemannian_adam", lr=0.1, weight_decay=0.3)
    torch.testing.assert_close(found, torch.cat([weights, bias]), **EXACT)


def transported(start: Tensor, end: Tensor, gradient: Tensor) -> Tensor:
    """The tangent part of a gradient at the end, turned back to the start along with the great circle between."""
    cosine = start @ end
    across = (start - cosine * end) / (1 - cosine**2).sqrt()
    turn = torch.outer(across, end) - torch.outer(end, across)
    return torch.matrix_exp(torch.acos(cosine) * turn) @ tangent(end, gradient)


def pulled_back(start: Tensor, ascent: Tensor) -> Tensor:
    """The gradient in the ascent of the loss after it."""
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
    # the bias is plain: the second step differs by 0.9 times the first one, in which nothing was decayed
    second = Bowl().step(name, 2, lr=0.1, rho=0.1, momentum=0.9)[3] - first[3]
    without = Bowl().step(name, 2, lr=0.1, rho=0.1)[3] - first[3]
    torch.testing.assert_close(second - without, 0.9 * (first[3] - 0.8), **EXACT)


def test_that_the_peer_s_learning_rate_follows_a_schedule() -> None:
    found = {}
    for name in ("sam", "peer_sam"):
        run = replace(run_of(name), model="small_plain_cnn")
        data, model, optimizer = prepare(run)
        schedule = CosineAnnealingLR(optimizer, T_max=3)
        closure = gradient_closure(model, optimizer, data.train_images[:64], data.train_labels[:64])
        found[name] = []
        for _ in range(4):
            optimizer.step(closure)
            schedule.step()
            found[name].append([p.detach().clone() for p in model.parameters()])
    for ours, theirs in zip(found["sam"], found["peer_sam"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)  # as above
    last, beyond = found["peer_sam"][2:]
    assert all(torch.equal(p, q) for p, q in zip(last, beyond, strict=True))  # at a rate of 0


def test_that_the_ambient_ascent_is_that_of_rsam_on_plain_weights_with_decay_and_momentum() -> None:
    ours, twin = Bowl(), Bowl()
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    ambient = AmbientSAM(ours.parameters(), ours, rho=0.2, **settings)
    sam = rsam.RSAM(twin.parameters(), torch.optim.SGD, rho=0.2, **settings)

    def closure(model: Bowl, optimizer: torch.optim.Optimizer) -> Callable[[], Tensor]:
        def evaluate() -> Tensor:
            optimizer.zero_grad()
            loss = model.loss()
            loss.backward()
            return loss

        return evaluate

    for _ in range(6):
        losses = ambient.step(closure(ours, ambient)), sam.step(closure(twin, sam))
        torch.testing.assert_close(*losses, **EXACT)
        torch.testing.assert_close(ours.position(), twin.position(), **EXACT)


def test_that_an_exception_in_the_ambient_ascent_leaves_batch_statistics() -> None:
    data, model, optimizer = prepare(run_of("ambient_sam"))
    images, labels = data.train_images[:64], data.train_labels[:64]
    weights = [p.detach().clone() for p in model.parameters()]
    once = deepcopy(model)
    once(images)
    calls = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)  # which moves the statistics
        calls.append(any(not torch.equal(p, q) for p, q in zip(model.parameters(), weights, strict=True)))
        if len(calls) == 2:
            raise ArithmeticError
        loss.backward()
        return loss

    with pytest.raises(ArithmeticError):
        optimizer.step(closure)
    assert calls == [False, True]  # the second time elsewhere
    for found, expected in zip(model.parameters(), weights, strict=True):
        assert torch.equal(found, expected)
    for found, expected in zip(model.buffers(), once.buffers(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["sam", "asam", "rsam", "rsam_pullback", "rsam_project", "ambient_sam", "peer_sam"])
def test_that_there_is_nowhere_to_ascend_to_from_a_stationary_point(name) -> None:
    bowl = Bowl()
    run = replace(RUN, method=name, rho=0.1, weight_decay=0.0)
    optimizer = METHODS[name].build(bowl, run)
    start = bowl.position()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0 * bowl.loss()  # flat everywhere
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(bowl.position(), start, **EXACT)


def objective_of(name: str, start: Tensor, loss: Callable[[Tensor], Tensor], **options: float) -> tuple[Tensor, Tensor]:
    """Value and gradient of what a penalised method minimises, at a start."""
    model = nn.Module()
    model.point = nn.Parameter(start.clone())
    value = METHODS[name].objective(model, replace(RUN, method=name, **options))(lambda: loss(model.point))
    value.backward()
    return value.detach(), model.point.grad


START = torch.tensor([0.7, -1.1, 0.4, 0.9], dtype=torch.float64)


def test_that_the_gradient_norm_is_penalised() -> None:
    matrix, offset = Bowl.MATRIX, torch.tensor([0.3, 0.1, -0.5, 0.2], dtype=torch.float64)
    slope = matrix @ START - offset
    value, gradient = objective_of("gradient_norm", START, lambda x: x @ matrix @ x / 2 - offset @ x, penalty=0.25)
    expected = START @ matrix @ START / 2 - offset @ START + 0.25 * slope.norm()
    torch.testing.assert_close(value, expected, **EXACT)
    # of a linear gradient a difference is exact but for rounding, 2e-16 over a step of 1.5e-8 times the size of START
    torch.testing.assert_close(gradient, slope + 0.25 * matrix @ slope / slope.norm(), rtol=0, atol=1e-6)


def test_that_the_trace_of_a_quadratic_loss_has_no_gradient() -> None:
    diagonal = torch.tensor([3.0, 1.0, 2.0, 0.5], dtype=torch.float64)
    value, gradient = objective_of("hessian_trace", START, lambda x: (diagonal * x * x).sum() / 2, penalty=0.25)
    # signs have squares of 1, so that one probe tells the trace of a diagonal matrix; differences of second order lose
    # half of the digits
    torch.testing.assert_close(value, (diagonal * START**2).sum() / 2 + 0.25 * 6.5, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, diagonal * START, rtol=0, atol=1e-6)


def test_that_the_trace_of_a_quartic_loss_is_penalised() -> None:
    value, gradient = objective_of("hessian_trace", START, lambda x: (x**4).sum() / 12, penalty=0.25)
    # Hessian diag(x^2); differences err by the square of their step, some 1e-8, and rounding as above
    torch.testing.assert_close(value, (START**4).sum() / 12 + 0.25 * (START**2).sum(), rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, START**3 / 3 + 0.25 * 2 * START, rtol=0, atol=1e-6)


def test_that_a_negative_trace_is_left_alone() -> None:
    value, gradient = objective_of("hessian_trace", START, lambda x: -(x**4).sum() / 12, penalty=0.25)
    torch.testing.assert_close(value, -(START**4).sum() / 12, **EXACT)
    torch.testing.assert_close(gradient, -(START**3) / 3, **EXACT)


def test_that_probes_of_the_trace_follow_the_seed() -> None:
    def value(seed: int) -> float:
        return float(objective_of("hessian_trace", START, lambda x: x @ Bowl.MATRIX @ x / 2, penalty=1.0, seed=seed)[0])

    values = [value(seed) for seed in range(8)]
    assert values == [value(seed) for seed in range(8)]
    # up to their sign there are eight probes; that all seeds draw the same one has a chance of 8^-7
    assert len({round(v, 6) for v in values}) > 1


@pytest.mark.parametrize("name", ["gradient_norm", "hessian_trace"])
def test_that_a_penalty_without_weight_is_sgd(name) -> None:
    expected, _ = steps(run_of("sgd"), 4)
    found, passes = steps(replace(run_of(name), penalty=0.0, weight_decay=5e-4), 4)
    assert passes == 4
    for mine, reference in zip(found.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(mine, reference)
    weighed, _ = steps(replace(run_of(name), penalty=0.1, weight_decay=5e-4), 4)
    assert not torch.equal(next(weighed.parameters()), next(expected.parameters()))
