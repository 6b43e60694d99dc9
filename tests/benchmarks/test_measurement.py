"""That the curvature of a trained network is measured as documented."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.data import Dataset
from benchmarks.runs import measurement
from benchmarks.runs.measurement import MEASURES, MICRO_BATCH, PROBES, RHO
from benchmarks.workloads.images import EXAMPLES
from benchmarks.workloads.problem import Problem

FEATURES, CLASSES = 5, 3


def dataset(count: int, seed: int = 0) -> Dataset:
    """Make examples ``(1, 5)`` in double precision, no two alike; held-out ones that would spoil all measurements."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, FEATURES, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return Dataset(images, labels, torch.full_like(images, torch.nan), torch.zeros_like(labels))


def measure(model: nn.Module, data: Dataset, start: list[Tensor], seed: int) -> dict[str, float]:
    """Take all measures of a network on images, divided as by its workload."""
    images, labels = data.train_images, data.train_labels
    whole = list(zip(images.split(EXAMPLES), labels.split(EXAMPLES), strict=True))
    problem = Problem(model, nn.CrossEntropyLoss(), lambda epoch: [], 0, dict, chosen(data, seed), whole)
    return measurement.measure(problem, list(MEASURES), start, seed)


def linear(seed: int = 0) -> nn.Module:
    """Make a network of eighteen parameters, so few that eigenvalues are computed exactly."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, CLASSES)).double()


def bent(seed: int = 0) -> nn.Module:
    """Make a network of 39 parameters with an indefinite Hessian."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 4), nn.Tanh(), nn.Linear(4, CLASSES)).double()


def starts(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def chosen(data: Dataset, seed: int) -> tuple[Tensor, Tensor]:
    """Return the drawn examples in their order."""
    order = torch.from_numpy(np.random.default_rng([seed, 3]).permutation(len(data.train_labels)))[:500]
    return data.train_images[order], data.train_labels[order]


class Flat:
    """Loss on a batch as a function of all parameters in one vector."""

    def __init__(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        self.model, self.batch = model, batch
        self.names = [name for name, _ in model.named_parameters()]
        self.likes = [p.detach().as_subclass(Tensor).clone() for p in model.parameters()]
        self.point = torch.cat([p.flatten() for p in self.likes])

    def __call__(self, vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in self.likes])
        parameters = {n: v.view_as(p) for n, v, p in zip(self.names, parts, self.likes, strict=True)}
        return cross_entropy(functional_call(self.model, parameters, self.batch[0]), self.batch[1])

    def gradient(self) -> Tensor:
        return torch.autograd.functional.jacobian(self, self.point)

    def hessian(self) -> Tensor:
        return torch.autograd.functional.hessian(self, self.point)


@pytest.mark.parametrize("make", [linear, bent])
@pytest.mark.parametrize("count", [120, 620])
def test_that_the_gradient_norm_is_of_all_training_examples(make, count) -> None:
    model, data = make(), dataset(count)
    actual = measure(model, data, starts(model), seed=1)["gradient_norm"]
    expected = Flat(model, (data.train_images, data.train_labels)).gradient().norm()
    assert actual == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("count", [120, 620])
def test_that_the_top_eigenvalue_of_few_parameters_is_exact(count) -> None:
    model, data = linear(), dataset(count)
    actual = measure(model, data, starts(model), seed=1)["top_eigenvalue"]
    # on the drawn examples; on all 620 it differs
    expected = torch.linalg.eigvalsh(Flat(model, chosen(data, 1)).hessian())[-1]
    assert actual == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("seed", [0, 4, 5])
def test_that_the_top_eigenvalue_is_the_largest_not_the_most_extreme(seed) -> None:
    model, data = bent(seed), dataset(80, seed)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
        # confident and always wrong, far from a minimum
        data = replace(data, train_labels=model(data.train_images).argmin(1))
    values = torch.linalg.eigvalsh(Flat(model, chosen(data, seed)).hessian())
    assert values[0] < -1.3 * values[-1] < 0
    actual = measure(model, data, starts(model), seed)["top_eigenvalue"]
    # computed to a hundredth of the largest modulus
    assert actual == pytest.approx(float(values[-1]), abs=0.01 * float(values.abs().max()))


def test_that_the_trace_and_its_error_are_hutchinson_s() -> None:
    model, data, seeds = bent(), dataset(80), 40
    hessian = Flat(model, chosen(data, 0)).hessian()
    actual = [measure(model, data, starts(model), seed) for seed in range(seeds)]
    exact = float(hessian.trace())
    # the variance of z^T H z with random signs is twice the sum of squares off the diagonal
    deviation = math.sqrt(2 * float((hessian - torch.diag(hessian.diagonal())).square().sum()))
    error = deviation / math.sqrt(PROBES)
    assert PROBES == 20
    mean = sum(m["trace"] for m in actual) / seeds
    assert abs(mean - exact) < 4 * error / math.sqrt(seeds)
    spread = np.std([m["trace"] for m in actual], ddof=1)
    told = math.sqrt(sum(m["trace_error"] ** 2 for m in actual) / seeds)
    # the deviation of 40 nearly normal numbers has a relative error of 11 %, that of 40 times 20 of 2.6 %; the bounds
    # are four times the first and three times the second
    assert spread == pytest.approx(error, rel=0.45)
    assert told == pytest.approx(error, rel=0.08)
    for m in actual:  # one of 40 such numbers is this far off with a chance of one in 400
        assert abs(m["trace"] - exact) < 4 * error


class Scaled(nn.Module):
    """Network whose logits are the first three numbers of an example, times its only parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, examples: Tensor) -> Tensor:
        return self.scale * examples[:, 0, :CLASSES]


def test_that_probes_are_signs() -> None:
    model, data = Scaled(), dataset(70)
    actual = measure(model, data, starts(model), seed=0)
    # signs have squares of 1, so that each probe gives a Hessian of one number exactly
    expected = float(Flat(model, chosen(data, 0)).hessian())
    assert actual["trace"] == pytest.approx(expected, rel=1e-12)
    assert actual["top_eigenvalue"] == pytest.approx(expected, rel=1e-12)
    assert actual["trace_error"] < 1e-12


def test_that_the_trace_is_of_the_drawn_examples() -> None:
    model, data = linear(), dataset(620)
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.zero_()
    # for equal probabilities the trace depends only on the lengths of examples: the drawn ones have length 3
    order = np.random.default_rng([7, 3]).permutation(620)
    lengths = torch.ones(620, 1, 1, dtype=torch.float64)
    lengths[order[500:]] = 30.0
    lengths[order[:500]] = 3.0
    images = data.train_images / data.train_images.norm(dim=2, keepdim=True) * lengths
    data = replace(data, train_images=images)
    actual = measure(model, data, starts(model), seed=7)
    # p (1 - p) = 2/9 for each of three classes, times the squared length, and 1 for the bias
    expected = 3 * 2 / 9 * (9 + 1)
    assert EXAMPLES == 500
    assert abs(actual["trace"] - expected) < 5 * actual["trace_error"] < 0.5 * expected


def expected_sharpness(model: nn.Module, images: Tensor, labels: Tensor, size: int, rho: float) -> float:
    """Return the mean over pieces of the rise of their loss along a step of SAM's ascent."""
    total = 0.0
    for start in range(0, len(labels), size):
        loss = Flat(model, (images[start : start + size], labels[start : start + size]))
        gradient = loss.gradient()
        rise = float(loss(loss.point + rho * gradient / gradient.norm()) - loss(loss.point))
        total += max(rise, 0.0) * len(labels[start : start + size])
    return total / len(labels)


@pytest.mark.parametrize("make", [linear, bent])
@pytest.mark.parametrize("count", [120, 620])
@pytest.mark.parametrize("seed", [0, 1])
def test_that_m_sharpness_is_the_mean_over_pieces(make, count, seed) -> None:
    model, data = make(), dataset(count)
    actual = measure(model, data, starts(model), seed)["sharpness"]
    assert (MICRO_BATCH, RHO) == (50, 0.05)
    expected = expected_sharpness(model, *chosen(data, seed), size=50, rho=0.05)
    assert actual == pytest.approx(expected, rel=1e-9)  # a difference of losses that are a hundred times as large


def test_that_the_distance_is_euclidean_over_all_parameters() -> None:
    model, data = linear(), dataset(60)
    start = starts(model)
    with torch.no_grad():
        model[1].weight[0, :2] += torch.tensor([3.0, -4.0])
        model[1].bias[2] += 12.0
    assert measure(model, data, start, seed=0)["distance"] == pytest.approx(13.0, rel=1e-12)
    assert measure(model, data, starts(model), seed=0)["distance"] == 0.0


def on_spheres() -> nn.Module:
    """Make two filters of three numbers on spheres, with plain bias and head: 26 parameters, 24 dimensions."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6, 3, bias=False)).double()
    return rsam.nn.constrain(model, rsam.geometry.KernelSphere(), nn.Conv1d)


def test_that_the_metric_is_that_of_the_manifolds() -> None:
    model, data = on_spheres(), dataset(90)
    loss = Flat(model, chosen(data, 2))

    def normalised(vector: Tensor) -> Tensor:
        """Return the loss at filters projected onto their spheres, which follows great circles to second order."""
        filters = vector[:6].view(2, 3)
        return loss(torch.cat([(filters / filters.norm(dim=1, keepdim=True)).flatten(), vector[6:]]))

    # project onto the tangent space: subtract the part along each filter
    projector = torch.eye(26, dtype=torch.float64)
    for i in (0, 3):
        projector[i : i + 3, i : i + 3] -= torch.outer(loss.point[i : i + 3], loss.point[i : i + 3])
    slope = projector @ loss.gradient()
    hessian = projector @ torch.autograd.functional.hessian(normalised, loss.point) @ projector
    actual = measure(model, data, starts(model), seed=2)
    assert actual["gradient_norm"] == pytest.approx(float(slope.norm()), rel=1e-12)
    assert slope.norm() < 0.995 * loss.gradient().norm()  # otherwise the sphere would make no difference
    values = torch.linalg.eigvalsh(hessian)
    assert actual["top_eigenvalue"] == pytest.approx(float(values[-1]), abs=0.01 * float(values.abs().max()))
    assert abs(actual["trace"] - float(hessian.trace())) < 4 * actual["trace_error"]
    rises, labels = [], loss.batch[1]
    for piece in (slice(0, 50), slice(50, 90)):
        loss.batch = chosen(data, 2)[0][piece], labels[piece]
        ascent = projector @ loss.gradient()
        end = loss.point + 0.05 * ascent / ascent.norm()
        rises.append(float(normalised(end) - loss(loss.point)) * len(labels[piece]))
    assert actual["sharpness"] == pytest.approx(sum(rises) / 90, rel=1e-9)


def test_that_the_distance_on_spheres_is_a_chord() -> None:
    model, data = on_spheres(), dataset(60)
    start = starts(model)
    with torch.no_grad():
        model[0].weight[0].neg_()  # move it to the antipode
    assert measure(model, data, start, seed=0)["distance"] == pytest.approx(2.0, rel=1e-12)


def test_that_what_is_measured_has_a_name() -> None:
    model, data = linear(), dataset(60)
    actual = measure(model, data, starts(model), seed=0)
    assert actual.keys() == {*MEASURES, "trace_error"}
    assert all(type(value) is float and math.isfinite(value) for value in actual.values())


def with_batch_norm() -> nn.Module:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten())
    model.append(nn.Linear(12, 3))
    for _ in range(3):  # give batch norm statistics that are not those of the data
        model(torch.randn(20, 1, FEATURES) * 2 + 1)
    return model


def test_that_measuring_changes_nothing_but_the_mode() -> None:
    model, data = with_batch_norm(), dataset(110)
    data = replace(data, train_images=data.train_images.float())
    for i, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, i)
    gradients = [p.grad for p in model.parameters()]
    start = starts(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    random.seed(6)
    np.random.seed(6)  # noqa: NPY002
    torch.manual_seed(6)
    measure(model, data, start, seed=0)
    drawn = random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002
    random.seed(6)
    np.random.seed(6)  # noqa: NPY002
    torch.manual_seed(6)
    assert drawn == (random.random(), np.random.rand(), float(torch.rand(())))  # noqa: NPY002
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for i, (p, gradient) in enumerate(zip(model.parameters(), gradients, strict=True)):
        assert p.grad is gradient and bool((gradient == i).all())
        assert p.requires_grad and torch.equal(p, start[i])


def test_that_a_network_is_measured_in_evaluation_mode() -> None:
    model, data = with_batch_norm().double(), dataset(110)
    model.eval()
    expected = Flat(model, (data.train_images, data.train_labels)).gradient().norm()
    model.train()  # the mode after training
    assert measure(model, data, starts(model), seed=0)["gradient_norm"] == pytest.approx(float(expected), rel=1e-10)


def test_that_a_seed_decides_examples_and_probes() -> None:
    model, data = bent(), dataset(620)
    first, again, other = (measure(model, data, starts(model), seed) for seed in (0, 0, 1))
    assert first == again
    for name in ("trace", "trace_error", "top_eigenvalue", "sharpness"):
        assert first[name] != other[name]
    assert first["gradient_norm"] == other["gradient_norm"]  # it is measured on all examples
    # if no examples are left out, only the probes differ
    few = dataset(100)
    first, other = (measure(model, few, starts(model), seed) for seed in (0, 1))
    assert abs(first["trace"] - other["trace"]) > 1e-6
    assert first["top_eigenvalue"] == pytest.approx(other["top_eigenvalue"], rel=0.02)


def test_that_what_cannot_be_measured_is_nan_and_the_rest_is_there(monkeypatch) -> None:
    def fails(*args: object, **options: object) -> None:
        raise RuntimeError("no convergence")

    monkeypatch.setattr(rsam.curvature, "top_eigenvalues", fails)
    model, data = linear(), dataset(60)
    actual = measure(model, data, starts(model), seed=0)
    assert [name for name, value in actual.items() if math.isnan(value)] == ["top_eigenvalue"]


def test_that_an_unknown_measure_is_refused() -> None:
    model, data = linear(), dataset(60)
    problem = Problem(model, nn.CrossEntropyLoss(), lambda epoch: [], 0, dict, chosen(data, 0))
    with pytest.raises(ValueError, match="no measure volume; measures: gradient_norm, trace"):
        measurement.measure(problem, ["trace", "volume"], starts(model), 0)
