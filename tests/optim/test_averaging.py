"""That averages stay on their manifolds, against closed forms, geoopt's distances and torch's own averages."""

from __future__ import annotations

import copy

import geoopt
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_avg_fn, get_swa_multi_avg_fn

import rsam
from rsam.optim import averaging
from rsam.testing.points import ambient_dtype, point_from_array
from tests.geometry.cases import MANIFOLDS


class Points(nn.Module):
    """Model of a point on a manifold and plain weights."""

    def __init__(self, x: torch.Tensor, manifold: geoopt.Manifold) -> None:
        super().__init__()
        self.x = geoopt.ManifoldParameter(x.clone(), manifold=manifold)
        self.plain = nn.Parameter(x.real.sum().reshape(1))


def averaged(points: list[torch.Tensor], manifold: geoopt.Manifold, decay: float | None = None) -> AveragedModel:
    model = Points(points[0], manifold)
    function = averaging.get_swa_multi_avg_fn(model)
    if decay is not None:
        function = averaging.get_ema_multi_avg_fn(model, decay)
    average = AveragedModel(model, multi_avg_fn=function)
    for x in points:
        with torch.no_grad():
            model.x.copy_(x)
            model.plain.copy_(x.real.sum())
        average.update_parameters(model)
    return average


def mean(points: list[torch.Tensor], manifold: geoopt.Manifold, decay: float | None = None) -> torch.Tensor:
    return averaged(points, manifold, decay).module.x.detach()


def drawn(manifold: geoopt.Manifold, shape: tuple[int, ...], dtype: torch.dtype, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ambient = ambient_dtype(manifold, dtype)
    return [
        point_from_array(manifold, 0.5 * torch.randn(shape, dtype=ambient, generator=generator)) for _ in range(count)
    ]


def test_that_the_mean_of_two_points_of_a_sphere_is_the_midpoint() -> None:
    a, b = drawn(geoopt.Sphere(), (3, 4), torch.float64, 2)
    middle = (a + b) / (a + b).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(mean([a, b], geoopt.Sphere()), middle, rtol=0, atol=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_that_an_antipode_has_no_average_with_its_point(seed: int) -> None:
    """Before, the average stayed where it was, or went anywhere."""
    x, y = nn.functional.normalize(torch.randn(2, 5, generator=torch.Generator().manual_seed(seed)), dim=1)
    layer = nn.ParameterList(geoopt.ManifoldParameter(x, manifold=geoopt.Sphere()) for x in (y, x))
    average = AveragedModel(layer, multi_avg_fn=averaging.get_swa_multi_avg_fn(layer))
    average.update_parameters(layer)
    with torch.no_grad():
        layer[1].neg_()
    with pytest.raises(ValueError, match=r"^'1' .*Sphere.* lies opposite to its average"):
        average.update_parameters(layer)


def test_that_the_mean_of_points_that_are_almost_antipodes_is_half_way() -> None:
    x, aside = drawn(geoopt.Sphere(), (50, 5), torch.float32, 2)
    y = geoopt.Sphere().projx(1e-5 * aside - x)
    middle = mean([x, y], geoopt.Sphere())
    for end in (x, y):
        # a right angle, but for half the offset and a few roundings
        torch.testing.assert_close((end * middle).sum(-1), torch.zeros(50), rtol=0, atol=1e-5)


@pytest.mark.parametrize("decay", [None, 0.7])
def test_that_points_of_a_great_circle_are_averaged_by_their_angles(decay) -> None:
    angles = torch.tensor([0.3, -0.9, 1.1, 0.4, -0.2], dtype=torch.float64)
    points = list(torch.stack((angles.cos(), 0 * angles, angles.sin()), -1))
    expected = angles[0]
    for n, angle in enumerate(angles):
        expected = expected + (angle - expected) * (1 / (n + 1) if decay is None else 1 - decay)
    x = mean(points, geoopt.Sphere(), decay)
    torch.testing.assert_close(torch.atan2(x[2], x[0]), expected, rtol=0, atol=1e-15)
    assert decay is not None or abs(expected - angles.mean()) < 1e-15


@pytest.mark.parametrize(
    ("manifold", "shape"),
    [
        (geoopt.PoincareBall(c=1.5), (4, 3)),
        (geoopt.Lorentz(), (4, 3)),
        (geoopt.SymmetricPositiveDefinite(), (4, 3, 3)),
        (rsam.geometry.KernelSphere(ndim=2), (4, 3)),
        (geoopt.StereographicProductManifold((geoopt.PoincareBall(), 2), (geoopt.SphereProjection(), 3)), (4, 5)),
    ],
)
def test_that_the_average_moves_its_share_along_the_geodesic(manifold, shape) -> None:
    """The mean of three points is a third of the way from the mean of two to the third, by geoopt's distance."""
    manifold = copy.deepcopy(manifold).double()
    points = drawn(manifold, shape, torch.float64, 3)
    two, three = mean(points[:2], manifold), mean(points, manifold)
    for x, y, z, share in ((points[0], two, points[1], 1 / 2), (two, three, points[2], 1 / 3)):
        whole = manifold.dist(x, z)
        # at most twenty roundings, at distances of about one
        torch.testing.assert_close(manifold.dist(x, y), share * whole, rtol=0, atol=1e-13)
        torch.testing.assert_close(manifold.dist(y, z), (1 - share) * whole, rtol=0, atol=1e-13)


@pytest.mark.parametrize("manifold", [geoopt.EuclideanStiefel(), rsam.geometry.CanonicalStiefel()])
def test_that_the_mean_on_stiefel_is_the_nearest_point_to_the_arithmetic_one(manifold) -> None:
    a, b = drawn(manifold, (5, 2), torch.float64, 2)
    u, _, v = torch.linalg.svd((a + b) / 2, full_matrices=False)
    torch.testing.assert_close(mean([a, b], manifold), u @ v, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=[m[0] for m in MANIFOLDS])
def test_that_averages_stay_on_every_manifold(name, make, shape) -> None:
    for dtype, rounding in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        manifold = make().to(dtype)
        points = drawn(manifold, shape, dtype, 4)
        for decay in (None, 0.9):
            x = mean(points, manifold, decay)
            ok, reason = manifold.check_point_on_manifold(x, explain=True, atol=rounding, rtol=rounding)
            assert ok, reason
            assert not torch.equal(x, points[0])


@pytest.mark.parametrize("manifold", [geoopt.EuclideanStiefel(), rsam.geometry.CanonicalStiefel()])
def test_that_a_rotation_and_a_reflection_have_no_mean(manifold: geoopt.Manifold) -> None:
    """Their arithmetic mean is singular, and its nearest orthogonal matrices are several; rounding chose one."""
    for seed in range(5):
        x, y = torch.linalg.qr(torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(seed)))[0]
        y = y * torch.tensor([-torch.det(x).sign() * torch.det(y).sign(), 1, 1, 1])
        with pytest.raises(ValueError, match=r"^'x' .* has several nearest points on its manifold"):
            mean([x, y], manifold)
        model = Points(x, manifold)
        with torch.no_grad():
            model.x.add_(y).div_(2)
        with pytest.raises(ValueError, match=r"^'x' .* has several nearest points on its manifold"):
            averaging.project_parameters(model)
        # a third of the way there is one
        torch.testing.assert_close(mean([x, x, y], manifold) @ x.mT, _polar((2 * x + y) / 3) @ x.mT, rtol=0, atol=1e-5)
    zero = Points(torch.zeros(4, 2), manifold)
    with pytest.raises(ValueError, match="several nearest"):
        averaging.project_parameters(zero)


def _polar(x: torch.Tensor) -> torch.Tensor:
    u, _, v = torch.linalg.svd(x)
    return u @ v


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=[m[0] for m in MANIFOLDS])
def test_that_projections_leave_points_of_every_manifold(name, make, shape) -> None:
    for dtype, rounding in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        manifold = make().to(dtype)
        (x,) = drawn(manifold, shape, dtype, 1)
        model = averaging.project_parameters(Points(x, manifold))
        torch.testing.assert_close(model.x.detach(), x, rtol=rounding, atol=rounding)


def test_that_torchs_own_average_leaves_the_manifold_without_a_word() -> None:
    """This is why rsam averages on manifolds by functions of its own."""
    points = drawn(geoopt.EuclideanStiefel(), (5, 2), torch.float64, 5)
    model = Points(points[0], geoopt.EuclideanStiefel())
    average = AveragedModel(model)
    for x in points:
        with torch.no_grad():
            model.x.copy_(x)
        average.update_parameters(model)
    x = average.module.x
    assert x.manifold.name == model.x.manifold.name
    assert (torch.linalg.vector_norm(x, dim=0) < 0.95).all()
    averaging.project_parameters(average)
    assert x.manifold.check_point_on_manifold(x.detach(), atol=1e-12)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("decay", [None, 0.9])
def test_that_plain_weights_are_averaged_bitwise_as_by_torch(use_buffers, decay) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3).double(), nn.PReLU())
    rsam.nn.constrain(model, rsam.geometry.KernelSphere(), "0.weight")
    if decay is None:
        ours, theirs = averaging.get_swa_multi_avg_fn(model), get_swa_multi_avg_fn()
    else:
        ours, theirs = averaging.get_ema_multi_avg_fn(model, decay), get_ema_multi_avg_fn(decay)

    def torchs(averages, currents, count):
        if averages[0].is_floating_point() or decay is not None:
            theirs(averages, currents, count)
        else:  # torch's default function, since get_swa_multi_avg_fn raises for integers
            for x, y in zip(averages, currents, strict=True):
                x.copy_(get_swa_avg_fn()(x, y, count))

    averages = [AveragedModel(model, multi_avg_fn=f, use_buffers=use_buffers) for f in (ours, torchs)]
    for _ in range(3):
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                if not isinstance(tensor, geoopt.ManifoldParameter):
                    tensor.add_(torch.randn(tensor.shape).to(tensor.dtype) + 1)
            model[0].weight.copy_(model[0].weight.manifold.projx(torch.randn(4, 2, 3, 3)))
        for average in averages:
            average.update_parameters(model)
    a, b = (average.state_dict() for average in averages)
    assert [name for name in a if not torch.equal(a[name], b[name])] == ["module.0.weight"]
    assert len(a) > 10


@pytest.mark.xfail(strict=True, raises=RuntimeError, reason="torch 2.14: get_swa_multi_avg_fn cannot average integers")
def test_torch_averages_the_counters_of_batch_norm() -> None:
    average = AveragedModel(nn.BatchNorm1d(2), multi_avg_fn=get_swa_multi_avg_fn(), use_buffers=True)
    for _ in range(2):
        average.update_parameters(nn.BatchNorm1d(2))


def test_that_half_precision_is_rounded_once_at_the_end() -> None:
    a, b = (x.bfloat16() for x in drawn(geoopt.Sphere(), (3, 4), torch.float32, 2))
    middle = (a + b).float() / (a.float() + b.float()).norm(dim=-1, keepdim=True)
    x = mean([a, b], geoopt.Sphere())
    assert x.dtype == torch.bfloat16
    torch.testing.assert_close(x.float(), middle, rtol=0, atol=2 * 2**-8)  # a and b are off the sphere by rounding
    assert torch.equal(x, mean([a.float(), b.float()], geoopt.Sphere()).bfloat16())


def test_that_an_average_keeps_its_state_and_its_copies() -> None:
    points = drawn(geoopt.Sphere(), (4,), torch.float64, 3)
    average = averaged(points, geoopt.Sphere())
    twin = copy.deepcopy(average)
    other = averaged(points[:1], geoopt.Sphere())
    other.load_state_dict(average.state_dict())
    model = Points(points[1], geoopt.Sphere())
    for each in (average, twin, other):
        each.update_parameters(model)
    assert torch.equal(twin.module.x, average.module.x)
    assert torch.equal(other.module.x, average.module.x)


def test_that_weights_of_another_model_are_refused() -> None:
    model = nn.Linear(3, 3)
    average = AveragedModel(nn.Linear(3, 4), multi_avg_fn=averaging.get_swa_multi_avg_fn(model))
    average.update_parameters(nn.Linear(3, 4))
    with pytest.raises(ValueError, match=r"2 averaged tensors of torch\.float32 that are not those of the Linear"):
        average.update_parameters(nn.Linear(3, 4))


def test_that_what_has_no_mean_is_refused() -> None:
    learned = nn.Module()
    learned.ball = geoopt.PoincareBall(learnable=True)
    learned.points = geoopt.ManifoldParameter(torch.zeros(2, 2), manifold=learned.ball)
    with pytest.raises(ValueError, match="'points' lives on a manifold whose curvature or scale is learned"):
        averaging.get_swa_multi_avg_fn(learned)
    with pytest.raises(ValueError, match=r"decay must be from 0 to 1, got 1\.5"):
        averaging.get_ema_multi_avg_fn(nn.Linear(2, 2), decay=1.5)


@pytest.mark.parametrize("bad", [0.0, float("nan")])
def test_that_a_projection_writes_all_weights_or_none(bad: float) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    rsam.nn.constrain(model, geoopt.Sphere(), ["0.weight", "1.weight"])
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(0.5)
        rows = model[1].weight.clone()
        model[1].weight[1] = bad
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"'1\.weight' .* has no nearest point"):
        averaging.project_parameters(model)
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0, equal_nan=True)
    with torch.no_grad():
        model[1].weight.copy_(rows)
    assert averaging.project_parameters(model) is model
    torch.testing.assert_close(model[1].weight.detach(), rows / rows.norm(dim=1, keepdim=True))
    assert torch.equal(model[2].weight, before["2.weight"])
