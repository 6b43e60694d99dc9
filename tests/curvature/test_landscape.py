"""That lines and planes show the loss where they say, against geoopt's exponentials and closed forms."""

from __future__ import annotations

import copy
import math
from typing import Any

import geoopt
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam.curvature import gradient_norm, landscape
from rsam.curvature.landscape import line, plane
from rsam.errors import NotFinite, UnsupportedOperation
from tests.curvature.problems import (
    DOUBLE,
    batches,
    examples,
    functional,
    labelled,
    mixed_network,
    network,
    normal,
    probed,
    risk_at,
)

CE, MSE = nn.CrossEntropyLoss(), nn.MSELoss()
MANIFOLDS = {
    "sphere": (geoopt.SphereExact(), (5,)),
    "ball": (geoopt.PoincareBall(), (3,)),
    "stiefel": (geoopt.EuclideanStiefelExact(), (4, 2)),
    "spd": (geoopt.SymmetricPositiveDefinite(), (3, 3)),
}


class Quadratic(nn.Module):
    """Model whose risk is w^T A w / 2, whatever the data."""

    def __init__(self) -> None:
        super().__init__()
        root = normal(4, 4, seed=3)
        self.a = root @ root.mT
        self.w = nn.Parameter(normal(4, seed=4))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.w @ self.a @ self.w / 2


def the_output(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs


NOTHING = torch.zeros(1, 1), torch.zeros(1, 1)
ONE = {"x": torch.ones(1)}


def loss_at(model: nn.Module, loss_func: Any, batch: Any, values: list[Tensor]) -> float:
    loss, _ = functional(model, loss_func, batch)
    with torch.no_grad():
        return float(loss(*values))


# -- along geodesics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MANIFOLDS)
def test_that_lines_and_planes_are_the_loss_at_the_exponentials_of_geoopt(name: str) -> None:
    manifold, shape = MANIFOLDS[name]
    model, batch = probed(manifold, shape)
    x, risk = model.point.detach().clone(), risk_at(model, batch)
    (d,), (e,) = landscape.random_directions(model.parameters(), seed=5)
    assert float(manifold.inner(x, d, d).sum()) == pytest.approx(1)
    found = line(model, MSE, model.parameters(), batch, [d], extent=(-0.5, 1.0), steps=4)
    expected = [float(risk(manifold.expmap(x, t * d))) for t in (-0.5, 0.0, 0.5, 1.0)]
    np.testing.assert_allclose(found.loss, expected, rtol=1e-9)
    assert found.lengths == pytest.approx((1,)) and found.coordinates.tolist() == [-0.5, 0, 0.5, 1]
    grid = plane(model, MSE, model.parameters(), batch, [[d], [e]], extent=((-0.5, 0.5), (0, 1)), steps=(3, 2))
    expected = [[float(risk(manifold.expmap(x, a * d + b * e))) for b in (0, 1)] for a in (-0.5, 0, 0.5)]
    np.testing.assert_allclose(grid.loss, expected, rtol=1e-9)
    assert grid.x.tolist() == [-0.5, 0, 0.5] and grid.y.tolist() == [0, 1]


def test_that_a_plane_of_a_quadratic_is_its_quadratic_form() -> None:
    model = Quadratic()
    w, d, e = model.w.detach().clone(), normal(4, seed=1), normal(4, seed=2)
    found = plane(model, the_output, model.parameters(), NOTHING, [[d], [e]], extent=(-1, 2), steps=(4, 7))
    x, y = np.meshgrid(np.linspace(-1, 2, 4), np.linspace(-1, 2, 7), indexing="ij")
    q = (torch.stack((w, d, e)) @ model.a @ torch.stack((w, d, e)).mT / 2).numpy()
    closed = q[0, 0] + 2 * q[0, 1] * x + 2 * q[0, 2] * y + q[1, 1] * x**2 + 2 * q[1, 2] * x * y + q[2, 2] * y**2
    np.testing.assert_allclose(found.loss, closed, rtol=1e-12)
    assert found.lengths == pytest.approx((float(d.norm()), float(e.norm()))) and found.unit == "multiples"


def test_that_the_gradient_direction_is_the_steepest() -> None:
    for model in (network(), mixed_network()):
        case = model, CE, list(model.parameters()), labelled()
        h = 1e-4
        found = line(*case, "gradient", extent=h, steps=2)
        # a central difference: its error is of order h^2
        assert np.diff(found.loss)[0] / (2 * h) == pytest.approx(gradient_norm(*case), rel=1e-6)


@pytest.mark.parametrize("name", MANIFOLDS)
def test_that_slopes_are_derivatives_of_the_loss(name: str) -> None:
    model, batch = probed(*MANIFOLDS[name])
    found = line(model, MSE, model.parameters(), batch, extent=1e-3, steps=5, gradients=True)
    # central differences at neighbours 5e-4 apart: errors of order 1e-7
    np.testing.assert_allclose(found.measures["slope"][1:-1], np.gradient(found.loss, 5e-4)[1:-1], rtol=1e-5, atol=1e-6)
    assert found.measures["gradient change"][2] == pytest.approx(0, abs=1e-12)


class Height(nn.Module):
    """Model that is a linear function of one point."""

    def __init__(self, x: Tensor, manifold: geoopt.Manifold) -> None:
        super().__init__()
        self.a = normal(*x.shape, seed=1)
        self.x = geoopt.ManifoldParameter(x, manifold=manifold)

    def forward(self, inputs: Tensor) -> Tensor:
        return (self.a * self.x).sum()


def test_that_gradients_change_as_in_closed_form() -> None:
    model = Quadratic()
    (d,) = landscape.random_directions(model.parameters(), 1)
    found = line(model, the_output, model.parameters(), NOTHING, d, extent=(0, 2), steps=3, gradients=True)
    step = float((model.a @ d[0]).norm())
    np.testing.assert_allclose(found.measures["gradient change"], [0, step, 2 * step], rtol=1e-9, atol=1e-12)
    # along the great circle towards its top, the gradient of a height keeps its direction
    sphere = Height(nn.functional.normalize(normal(4, seed=2), dim=0), geoopt.Sphere())
    up = float(sphere.a @ sphere.x.detach())
    slope = math.sqrt(float(sphere.a @ sphere.a) - up**2)
    found = line(sphere, the_output, sphere.parameters(), NOTHING, "gradient", extent=(0, 1.5), steps=4, gradients=True)
    t = found.coordinates
    slopes = slope * np.cos(t) - up * np.sin(t)
    np.testing.assert_allclose(found.measures["slope"], slopes, rtol=1e-9)
    np.testing.assert_allclose(found.measures["gradient change"], abs(slopes - slope), rtol=1e-9, atol=1e-9)


def test_that_gradients_are_brought_back_along_the_geodesic() -> None:
    """On the canonical Stiefel manifold the rotation that moves the point moves the gradient back."""
    model = Height(torch.linalg.qr(normal(4, 2, seed=2))[0], rsam.geometry.CanonicalStiefel())
    ((u,),) = landscape.random_directions(model.parameters(), 1)
    found = line(model, the_output, model.parameters(), NOTHING, [u], extent=(0, 1.2), steps=2, gradients=True)
    x, c = model.x.detach(), model.a
    generator = u - x @ x.mT @ u / 2
    rotation = torch.matrix_exp(1.2 * (generator @ x.mT - x @ generator.mT))
    y = rotation @ x
    difference = rotation.mT @ (c - y @ c.mT @ y) - (c - x @ c.mT @ x)
    norm = float((difference**2).sum() - ((x.mT @ difference) ** 2).sum() / 2) ** 0.5
    assert found.measures["gradient change"][1] == pytest.approx(norm, rel=1e-9)


def test_that_half_precision_rounds_the_points_and_not_the_steps() -> None:
    def loss_func(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).square().mean()  # nn.MSELoss has no bfloat16 on torch 2.4

    model, batch = network().bfloat16(), tuple(t.bfloat16() for t in examples())
    (d,) = landscape.random_directions(model.parameters(), 1)
    assert {t.dtype for t in d} == {torch.float32}
    found = line(model, loss_func, model.parameters(), batch, d, extent=1e-2, steps=3)
    for t, loss in zip((-1e-2, 0, 1e-2), found.loss, strict=True):
        points = [(p.float() + t * v).bfloat16() for p, v in zip(model.parameters(), d, strict=True)]
        assert loss == loss_at(model, loss_func, batch, points)


def test_that_a_line_between_networks_in_half_precision_ends_at_the_other() -> None:
    """Before, the difference of the weights was rounded, too."""

    def loss_func(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean()

    model, other = (network(seed).bfloat16() for seed in (0, 1))
    batch = tuple(t.bfloat16() for t in examples())
    found = line(model, loss_func, model.named_parameters(), batch, other=other, steps=2)
    assert found.loss.tolist() == [loss_at(m, loss_func, batch, list(m.parameters())) for m in (model, other)]
    for d, p, q in zip(landscape.direction_to(model.named_parameters(), other), model.parameters(), other.parameters(),
                       strict=True):  # fmt: skip
        assert torch.equal(d, q.detach().float() - p.detach().float())


# -- between solutions ------------------------------------------------------------------------------------------------


def test_that_the_ends_between_solutions_are_theirs_and_the_middle_is_the_geodesic_midpoint() -> None:
    sphere = geoopt.SphereExact()
    model, other = (rsam.nn.constrain(network(seed), sphere, "*.weight") for seed in (0, 1))
    batch = labelled()
    ends = [[p.detach() for p in m.parameters()] for m in (model, other)]
    middle = [
        nn.functional.normalize(a + b, dim=-1) if isinstance(p, geoopt.ManifoldParameter) else (a + b) / 2
        for p, a, b in zip(model.parameters(), *ends, strict=True)
    ]
    expected = [loss_at(model, CE, batch, at) for at in (ends[0], middle, ends[1])]
    for solution in (other, other.state_dict(), ends[1]):
        found = line(model, CE, model.parameters(), batch, other=solution, steps=3)
        np.testing.assert_allclose(found.loss, expected, rtol=1e-9)
    assert found.unit == "fraction of the way"
    angles = [torch.acos((a * b).sum(-1)) if a.dim() > 1 else a - b for a, b in zip(*ends, strict=True)]
    assert found.lengths[0] == pytest.approx(float(torch.cat(angles).norm()))
    tangents = landscape.direction_to(model.named_parameters(), other)
    same = line(model, CE, model.parameters(), batch, tangents, extent=(0, 1), steps=3)
    np.testing.assert_array_equal(same.loss, found.loss)


def test_that_a_solution_that_is_none_is_refused_by_name() -> None:
    model = rsam.nn.constrain(network(), geoopt.Sphere(), "2.weight")
    case = model, CE, model.parameters(), labelled()
    off, fewer = network(1).state_dict(), network(1).state_dict()
    del fewer["2.bias"]
    reshaped = {**model.state_dict(), "0.bias": torch.zeros(7)}
    for other, message in (
        (off, r"other: no geodesic to its 2\.weight \(shape \(3, 5\), Sphere\) was found"),
        (fewer, r"other has no '2\.bias'"),
        (reshaped, r"other: 0\.bias .* has shape \(7,\) there"),
        ({**model.state_dict(), "0.bias": math.nan * model[0].bias}, r"other: 0\.bias .* is not finite there"),
        ([torch.zeros(2)], "other has 1 tensors, but 4 of params"),
    ):
        with pytest.raises(ValueError, match=message):
            line(*case[:2], model.parameters(), case[3], other=other)
    with pytest.raises(ValueError, match="other has no 'parameter 0'"):
        landscape.direction_to(model.parameters(), model)
    with pytest.raises(UnsupportedOperation, match=r"0\.weight .*has no logarithm"):
        landscape.direction_to(mixed_network().named_parameters(), mixed_network())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_that_antipodes_are_refused_and_their_neighbours_are_not(dtype: torch.dtype) -> None:
    """All ways to an antipode are equally long; rounding errors would choose one that leaves the sphere."""
    neighbour = torch.finfo(dtype).eps ** 0.25
    for seed in range(20):
        x = nn.functional.normalize(normal(7, seed=seed), dim=0).to(dtype)
        aside = normal(7, seed=seed + 100).to(dtype)
        aside = nn.functional.normalize(aside - (aside @ x) * x, dim=0)
        point = [geoopt.ManifoldParameter(x, manifold=geoopt.Sphere())]
        with pytest.raises(ValueError, match="neither antipodal nor beyond the reach of the logarithm"):
            landscape.direction_to(point, [-x])
        (direction,) = landscape.direction_to(point, [neighbour * aside - x])
        half = torch.cos(direction.norm() / 2) * x + torch.sin(direction.norm() / 2) * direction / direction.norm()
        torch.testing.assert_close(half.norm(), torch.ones((), dtype=dtype))
        # the way is shorter than half a circle by the offset of the neighbour
        torch.testing.assert_close(half, aside, atol=neighbour, rtol=0)


# -- data and measures ------------------------------------------------------------------------------------------------


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).double().mean()


def test_that_measures_are_means_over_examples_of_unequal_batches() -> None:
    model, batch = network(), labelled()
    (d,) = landscape.random_directions(model.parameters(), 1)
    points = [p.detach() + 2 * v for p, v in zip(model.parameters(), d, strict=True)]
    names = dict(model.named_parameters())
    outputs = torch.func.functional_call(model, dict(zip(names, points, strict=True)), batch[0])
    expected = float(accuracy(outputs, batch[1]))
    weighted = nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 9.0], dtype=DOUBLE))
    for loss in (CE, weighted, nn.CrossEntropyLoss(reduction="sum")):
        for in_memory in (True, False):
            found = line(
                model, loss, model.parameters(), batches(batch, 7, 4, 1), d, extent=(0, 2), steps=2,
                measures={"accuracy": accuracy}, in_memory=in_memory)  # fmt: skip
            assert found.measures["accuracy"][1] == pytest.approx(expected, rel=1e-12)
            assert found.loss[1] == pytest.approx(float(loss(outputs, batch[1])), rel=1e-12)
    grid = plane(model, CE, model.parameters(), batch, steps=(2, 3), measures={"accuracy": accuracy})
    assert grid.measures["accuracy"].shape == (2, 3)


class Counted(list):
    passes = 0

    def __iter__(self) -> Any:
        self.passes += 1
        return super().__iter__()


def test_that_data_are_gone_through_once_unless_told_otherwise() -> None:
    model = network()
    for in_memory, passes in ((True, 1), (False, 6)):
        data = Counted(batches(examples(), 7, 4, 1))
        plane(model, MSE, model.parameters(), data, steps=(2, 3), in_memory=in_memory)
        assert data.passes == passes


def test_that_dropout_is_the_same_at_every_point() -> None:
    model = nn.Sequential(nn.Linear(4, 20), nn.Dropout(), nn.Linear(20, 3)).double()
    still = [torch.zeros_like(p) for p in model.parameters()]
    found = line(model, CE, model.parameters(), labelled(), still, steps=5)
    assert len(set(found.loss.tolist())) == 1
    assert found.loss[0] != CE(copy.deepcopy(model).eval()(labelled()[0]), labelled()[1]).item()


def test_that_points_where_the_loss_diverges_do_not_end_the_survey() -> None:
    weight = nn.Parameter(torch.ones(1))
    case = (lambda x: (x * weight).exp().sum()), None, [weight], ONE, [torch.ones(1)]
    found = line(*case, extent=(0, 1e3), steps=3, gradients=True)
    for values in (found.loss, *found.measures.values()):
        assert np.isfinite(values).tolist() == [True, False, False]
    with pytest.raises(NotFinite, match="finite nowhere"):
        line(*case, extent=(200, 300), steps=3)


class Slope(nn.Module):
    """Model that is the derivative of a parabola, as a network that solves a differential equation."""

    def __init__(self, enabled: bool) -> None:
        super().__init__()
        self.w, self.enabled = nn.Parameter(torch.ones((), dtype=DOUBLE)), enabled

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.enabled or torch.is_grad_enabled()):
            x = inputs.detach().requires_grad_()
            return torch.autograd.grad((self.w * x**2).sum(), x, create_graph=True)[0]


def test_that_models_that_differentiate_are_told_how() -> None:
    data = torch.ones(3, 1, dtype=DOUBLE), torch.zeros(3, 1, dtype=DOUBLE)
    model = Slope(enabled=True)
    found = line(model, MSE, model.parameters(), data, [torch.ones((), dtype=DOUBLE)], steps=3, gradients=True)
    np.testing.assert_allclose(found.loss, [0, 4, 16])  # (2 w)^2
    np.testing.assert_allclose(found.measures["slope"], [0, 8, 16])
    model = Slope(enabled=False)
    with pytest.raises(RuntimeError, match="does not require grad") as caught:
        line(model, MSE, model.parameters(), data, steps=3)
    assert "within torch.enable_grad()" in caught.value.__notes__[0]


def test_that_a_zero_gradient_has_no_direction_and_measures_need_targets_to_count() -> None:
    flat = Quadratic()
    nn.init.zeros_(flat.w)
    with pytest.raises(ValueError, match="the gradient is zero, so that it has no direction"):
        line(flat, the_output, flat.parameters(), NOTHING, "gradient")
    model, batch = network(), (examples()[0], None)
    with pytest.raises(ValueError, match="averaged over examples, but the targets hold no tensor"):
        line(model, lambda f, y: f.mean(), model.parameters(), batch, measures={"one": lambda f, y: 1.0})


def test_that_frozen_parameters_stay() -> None:
    model = network()
    model[0].requires_grad_(False)
    tangents = landscape.random_directions(model.parameters(), 1)[0]
    assert [t.shape for t in tangents] == [model[2].weight.shape, model[2].bias.shape]
    found = line(model, MSE, model.parameters(), examples(), tangents, extent=(0, 1), steps=2)
    at = [p + (0 if i < 2 else tangents[i - 2]) for i, p in enumerate(model.parameters())]
    assert found.loss[1] == pytest.approx(loss_at(model, MSE, examples(), at), rel=1e-12)


# -- options ----------------------------------------------------------------------------------------------------------

BAD: list[tuple[Any, dict[str, Any], str]] = [
    (line, {"direction": "up"}, "must be one of .*'gradient'.* or tangents, got 'up'"),
    (plane, {"directions": "gradient"}, r"must be one of \['random', 'filter'\] or tangents"),
    (plane, {"directions": [[]]}, "directions must be 2 lists of tensors, got 1"),
    (line, {"direction": [torch.ones(2)]}, "a direction has 1 tensors, but 4 of params"),
    (line, {"direction": [torch.ones(2)] * 4}, r"a direction has shape \(2,\) for 0\.weight"),
    (line, {"direction": "filter", "other": network()}, "direction and other exclude each other"),
    (line, {"extent": -1.0}, "extent must be positive or a rising pair"),
    (line, {"extent": (0.0, float("inf"))}, "extent must be positive or a rising pair"),
    (line, {"extent": (0.0, 1.0, 2.0)}, "extent must be positive or a rising pair"),
    (plane, {"extent": ((0, 1), (0, 1), (0, 1))}, "extent and steps must be one for both directions or one for each"),
    (plane, {"steps": (2, 2, 2)}, "extent and steps must be one for both directions or one for each"),
    (line, {"steps": 1}, "steps must be at least 2, got 1"),
    (line, {"batch_norm": "train"}, "batch_norm must be one of"),
    (line, {"measures": {"loss": accuracy}}, "'loss' means something here"),
    (line, {"measures": {"all": lambda o, t: o}}, "'all' must return a mean over the examples"),
    (line, {"direction": [0.5] * 4}, "a direction must be one tensor per parameter, but holds a float"),
]


@pytest.mark.parametrize(("function", "options", "message"), BAD, ids=[message[:25] for _, _, message in BAD])
def test_that_bad_options_are_refused(function: Any, options: dict[str, Any], message: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=message):
        function(model, MSE, model.parameters(), examples(), **options)
