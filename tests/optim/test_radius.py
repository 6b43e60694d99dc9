"""That the ascent has the right length: in one ball of the product, or a ball for each parameter or point."""

from __future__ import annotations

from fractions import Fraction

import geoopt
import numpy as np
import pytest
import torch

import rsam
from rsam.geometry import KernelSphere, KernelStiefel
from tests.optim import reference
from tests.optim.problems import closure_of, manifold_points

RADII = ["product", "parameter", "point"]
RHO, RHO_PLAIN = 0.3, 0.1
SHAPES = {
    "kernels": (3, 2, 2, 2),
    "equal kernels": (3, 2, 2, 2),
    "other kernels": (4, 2, 3, 3),
    "matrix": (4, 2, 3, 3),
    "rows": (3, 4),
    "bias": (5,),
    "weight": (2, 3),
}


def _rows(name: str, x: np.ndarray) -> np.ndarray:
    """Return the points of a parameter as vectors, one per row."""
    one = name in ("matrix", "bias", "weight")
    return x.reshape(1, -1) if one else x.reshape(x.shape[0], -1)


def _tangent(name: str, x: np.ndarray, g: np.ndarray) -> np.ndarray:
    if name in ("bias", "weight"):
        return g
    if name == "matrix":
        matrix, cotangent = x.reshape(4, -1).T, g.reshape(4, -1).T
        return reference.EuclideanStiefel().project(matrix, cotangent).T.reshape(x.shape)
    rows, gs = _rows(name, x), _rows(name, g)
    return (gs - rows * (rows * gs).sum(1, keepdims=True)).reshape(x.shape)


def _geodesic(name: str, x: np.ndarray, e: np.ndarray) -> np.ndarray:
    if name in ("bias", "weight"):
        return x + e
    if name == "matrix":
        return reference.EuclideanStiefel().exponential(x.reshape(4, -1).T, e.reshape(4, -1).T).T.reshape(x.shape)
    rows, es = _rows(name, x), _rows(name, e)
    angle = np.linalg.norm(es, axis=1, keepdims=True)
    return (np.cos(angle) * rows + np.sinc(angle / np.pi) * es).reshape(x.shape)


def _problem(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Make parameters for which all kinds of radius differ, with values and gradients."""
    rng, sphere = np.random.default_rng(seed), KernelSphere()
    manifolds = {"matrix": KernelStiefel(), "rows": geoopt.Sphere(), "other kernels": KernelSphere()}
    params, points, gradients = {}, {}, {}
    for name, shape in SHAPES.items():
        x = torch.tensor(rng.standard_normal(shape))
        if name in ("bias", "weight"):
            params[name] = torch.nn.Parameter(x)
        else:
            manifold = manifolds.get(name, sphere)
            params[name] = geoopt.ManifoldParameter(manifold.projx(x).contiguous(), manifold=manifold)
        points[name] = params[name].detach().numpy().copy()
        gradients[name] = rng.standard_normal(shape)
        params[name].grad = torch.tensor(gradients[name])
    return params, points, gradients


def _groups(params: dict[str, torch.Tensor]) -> list[dict]:
    plain = [p for name, p in params.items() if name in ("bias", "weight")]
    return [{"params": [p for p in params.values() if p not in set(plain)]}, {"params": plain, "rho": RHO_PLAIN}]


@pytest.mark.parametrize("radius", RADII)
def test_that_each_radius_is_its_formula(radius) -> None:
    params, points, gradients = _problem()
    opt = rsam.RSAM(_groups(params), lr=0.1, rho=RHO, ascent="exponential", radius=radius)
    opt.first_step()
    tangents = {name: _tangent(name, x, gradients[name]) for name, x in points.items()}
    product = np.sqrt(sum(np.sum(r**2) for r in tangents.values()))
    for name, x in points.items():
        rho, r = (RHO_PLAIN if name in ("bias", "weight") else RHO), tangents[name]
        if radius == "point":
            rows = _rows(name, r)
            e = (rho * rows / np.linalg.norm(rows, axis=1, keepdims=True)).reshape(x.shape)
        else:
            e = rho * r / (np.linalg.norm(r) if radius == "parameter" else product)
        # float64 rounding; torch's matrix exponential, for Stiefel, has errors of 1e-12 for matrices of norm 0.1
        tolerance = 1e-10 if name == "matrix" else 1e-14
        np.testing.assert_allclose(params[name].detach().numpy(), _geodesic(name, x, e), rtol=0, atol=tolerance)
    assert opt.grad_norm == pytest.approx(product, rel=1e-12)  # for every kind of radius


def test_that_each_kernel_and_each_row_turns_by_the_angle_rho() -> None:
    params, points, _ = _problem(seed=1)
    opt = rsam.RSAM(_groups(params), lr=0.1, rho=RHO, ascent="exponential", radius="point")
    opt.first_step()
    for name in ("kernels", "equal kernels", "other kernels", "rows"):
        before, after = _rows(name, points[name]), _rows(name, params[name].detach().numpy())
        np.testing.assert_allclose(np.arccos((before * after).sum(1)), RHO, rtol=1e-12)


@pytest.mark.parametrize("radius", ["parameter", "point"])
def test_that_a_linear_loss_rises_by_the_dual_norm(radius) -> None:
    """That is rho times the sum of the parts' norms; with one ball, rho times the root of the sum of squares."""
    a, b = (torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2))
    loss = lambda: 3 * a[0] + 4 * b[1]  # noqa: E731
    rises = []
    for chosen in (radius, "product"):
        opt = rsam.RSAM([a, b], torch.optim.SGD, lr=0.0, rho=0.1, radius=chosen)
        opt.step(closure_of(opt, loss))
        rises.append(opt.sharpness)
    assert rises == pytest.approx([0.1 * (3 + 4), 0.1 * 5], rel=1e-12)


@pytest.mark.parametrize("radius", ["parameter", "point"])
@pytest.mark.parametrize("name", ["sphere", "stiefel", "ball", "spd", "canonical", "product", "kernel_canonical"])
def test_that_parameters_in_a_stack_move_as_each_alone(name, radius) -> None:
    one = manifold_points()[name]
    starts = [one.detach()] + [
        rsam.geometry.geometry_of(one.manifold).retract(one.detach(), u)
        for u in rsam.geometry.Product([one]).project([one.detach()], [torch.full_like(one, 0.1)])
    ]
    gradients = [torch.randn(one.shape, dtype=one.dtype, generator=torch.Generator().manual_seed(i)) for i in range(2)]

    def perturbed(which: list[int]) -> list[torch.Tensor]:
        params = [geoopt.ManifoldParameter(starts[i].clone(), manifold=one.manifold) for i in which]
        opt = rsam.RSAM(params, lr=0.1, rho=RHO, radius=radius)
        for i, p in zip(which, params, strict=True):
            p.grad = gradients[i].clone()
        opt.first_step()
        return [p.detach() for p in params]

    for together, i in zip(perturbed([0, 1]), (0, 1), strict=True):
        (alone,) = perturbed([i])
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)  # rounding of batched factorisations
        assert not torch.allclose(together, starts[i], atol=1e-3)


def test_that_points_move_alike_in_one_parameter_and_in_many() -> None:
    rng = torch.Generator().manual_seed(0)
    x, g = (torch.randn(5, 4, dtype=torch.float64, generator=rng) for _ in range(2))
    x = x / x.norm(dim=1, keepdim=True)
    results = []
    for pieces in ([x], list(x)):
        params = [geoopt.ManifoldParameter(piece.clone(), manifold=geoopt.Sphere()) for piece in pieces]
        opt = rsam.RSAM(params, lr=0.1, rho=RHO, radius="point")
        for p, piece in zip(params, [g] if len(pieces) == 1 else list(g), strict=True):
            p.grad = piece.clone()
        opt.first_step()
        results.append(torch.cat([p.detach().reshape(-1, 4) for p in params]))
    torch.testing.assert_close(*results, rtol=0, atol=1e-15)


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("name", ["sphere", "kernel_sphere"])
def test_that_members_of_a_stack_without_a_gradient_stay(name, radius) -> None:
    """The gradient may be missing in either pass; the other members move and step as if they were alone."""
    results = []
    for which in ([0, 1, 2, 3], [1, 3]):
        one = manifold_points()[name]
        params = {i: geoopt.ManifoldParameter(one.detach().roll(i, 0), manifold=one.manifold) for i in which}
        opt = rsam.RSAM(list(params.values()), lr=0.1, rho=RHO, radius=radius)
        for i in (1, 3):
            params[i].grad = torch.cos(i * torch.arange(one.numel())).to(one).reshape(one.shape)
        opt.first_step(zero_grad=True)
        perturbed = {i: p.detach().clone() for i, p in params.items()}
        params[3].grad = torch.ones_like(one)
        opt.second_step()
        results.append((perturbed, {i: p.detach().clone() for i, p in params.items()}))
    for all_four, two in zip(*results, strict=True):
        for i in (1, 3):
            torch.testing.assert_close(all_four[i], two[i], rtol=0, atol=1e-15)
        for i in (0, 2):
            assert torch.equal(all_four[i], one.detach().roll(i, 0))
    perturbed, stepped = results[0]
    assert (perturbed[1] - one.detach().roll(1, 0)).norm() > 0.1
    assert torch.equal(stepped[1], one.detach().roll(1, 0))  # no gradient to step with, and put back
    assert not torch.allclose(stepped[3], one.detach().roll(3, 0))


# -- points that must not move ---------------------------------------------------------------------------------------


def _moved(p: torch.Tensor, start: torch.Tensor) -> list[float]:
    return (p.detach() - start).norm(dim=-1).tolist()


def _spheres(dtype: torch.dtype, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x, g = (torch.randn(rows, 50, dtype=torch.float64, generator=rng) for _ in range(2))
    return (x / x.norm(dim=1, keepdim=True)).to(dtype), g.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("split", "radius"), [(False, "point"), (True, "point"), (True, "parameter")])
def test_that_a_radial_gradient_moves_no_point_beside_others(split, radius, dtype) -> None:
    """The projection of such a gradient is rounding in a random direction, for a row and for a stacked parameter."""
    x, g = _spheres(dtype)
    g[1] = 5 * x[1]
    params = [geoopt.ManifoldParameter(part.clone(), manifold=geoopt.Sphere()) for part in (x if split else [x])]
    opt = rsam.RSAM(params, lr=0.1, rho=RHO, radius=radius, ascent="exponential")
    for p, part in zip(params, g if split else [g], strict=True):
        p.grad = part.clone()
    opt.first_step()
    moved = _moved(torch.cat([p.detach().reshape(-1, 50) for p in params]), x)
    eps, chord = torch.finfo(dtype).eps, 2 * np.sin(RHO / 2)
    assert moved == pytest.approx([chord, 0, chord], rel=100 * eps, abs=2 * eps)  # 50 terms; rounding of the point


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", ["parameter", "point"])
def test_that_no_point_moves_from_a_minimum_on_the_manifold(radius, dtype) -> None:
    """All gradients are radial, so that their projections are rounding."""
    x, _ = _spheres(dtype)
    p = geoopt.ManifoldParameter(x.clone(), manifold=geoopt.Sphere())
    opt = rsam.RSAM([p], lr=0.1, rho=RHO, radius=radius, ascent="exponential")
    p.grad = -3.7 * x
    opt.first_step()
    assert max(_moved(p, x)) < 1e-3


def test_that_a_radial_gradient_moves_no_point_however_long_it_is_beside_others() -> None:
    x, g = _spheres(torch.float32)
    g[1] = 5e3 * x[1]
    p = geoopt.ManifoldParameter(x.clone(), manifold=geoopt.Sphere())
    opt = rsam.RSAM([p], lr=0.1, rho=RHO, radius="point", ascent="exponential")
    p.grad = g
    opt.first_step()
    assert _moved(p, x)[0] == pytest.approx(2 * np.sin(RHO / 2), rel=1e-4)
    assert _moved(p, x)[1] < 1e-3


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("radius", RADII)
def test_that_points_move_as_far_whatever_the_loss_is_scaled_by(radius, size) -> None:
    """A gradient scaler multiplies by 65536; fourth powers of what comes out leave the range of float32 early."""
    x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    opt = rsam.RSAM([x], lr=0.1, rho=RHO, radius=radius, ascent="exponential")
    x.grad = torch.tensor([0.0, size])
    opt.first_step()
    # 4 roundings of 1.2e-7 each in a turn of 0.3
    assert _moved(x, torch.tensor([[0.6, 0.8]])) == pytest.approx([2 * np.sin(RHO / 2)], rel=2e-6)


def _ascended(size: float, radius, **options) -> tuple[list[torch.Tensor], float]:
    x, g = _spheres(torch.float32)
    g[1] = 5 * x[1]  # whose projection is rounding
    plain, scaled = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    points = geoopt.ManifoldParameter(x, manifold=geoopt.Sphere())
    groups = [{"params": [plain, points]}, {"params": [scaled], "adaptive": True}]
    opt = rsam.RSAM(groups, lr=0.1, rho=RHO, radius=radius, **options)
    for p, gradient in ((plain, [3.0, 4.0]), (points, g), (scaled, [1.0, -1.0])):
        p.grad = size * torch.as_tensor(gradient)
    opt.first_step()
    return [p.detach() for p in (plain, points, scaled)], opt.grad_norm


@pytest.mark.parametrize("size", [2.0**-60, 2.0**-70, 2.0**-100])
@pytest.mark.parametrize(
    ("radius", "options"),
    [*((radius, {}) for radius in RADII), ("product", {"direction": lambda w: w.raise_index(w.gradients)})],
    ids=[*RADII, "direction"],
)
def test_that_gradients_whose_squares_vanish_are_ascended_along(radius, options, size) -> None:
    """In single precision squares of numbers below 1e-23 are zero. A power of two changes no rounding."""
    (params, length), (expected, norm) = (_ascended(s, radius, **options) for s in (size, 1.0))
    for p, q in zip(params, expected, strict=True):
        assert torch.equal(p, q)
    assert length == size * norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", ["parameter", "point"])
def test_that_a_tangent_as_short_as_rounding_errors_of_the_longest_moves_nothing(radius, dtype) -> None:
    lengths = [1.0, torch.finfo(dtype).eps, 1e4 * torch.finfo(dtype).eps]
    params = [torch.nn.Parameter(torch.zeros(2, dtype=dtype)) for _ in lengths]
    tangents = [torch.tensor([length, 0.0], dtype=dtype) for length in lengths]
    opt = rsam.RSAM(params, torch.optim.SGD, lr=0.1, rho=0.5, radius=radius, direction=lambda weights: tangents)
    for p in params:
        p.grad = torch.ones_like(p)
    opt.first_step()
    assert [p.detach().norm().item() for p in params] == pytest.approx([0.5, 0.0, 0.5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_that_plain_parameters_of_unequal_gradients_all_move(dtype) -> None:
    """Small gradients that are not projections are no noise, even in half precision."""
    a, b = (torch.nn.Parameter(torch.zeros(4, dtype=dtype)) for _ in range(2))
    opt = rsam.RSAM([a, b], torch.optim.SGD, lr=0.1, rho=0.5, radius="parameter")
    a.grad, b.grad = torch.ones(4, dtype=dtype), torch.full((4,), 0.05, dtype=dtype)
    opt.first_step()
    for p in (a, b):
        assert p.detach().float().norm().item() == pytest.approx(0.5, rel=1e-2)  # bfloat16 has 8 bits


@pytest.mark.parametrize("radius", RADII)
def test_that_zero_gradients_move_nothing(radius) -> None:
    params, points, _ = _problem()
    opt = rsam.RSAM(_groups(params), lr=0.1, rho=RHO, radius=radius)
    for p in params.values():
        p.grad.zero_()
    opt.first_step()
    assert opt.grad_norm == 0
    for name, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), points[name], rtol=0, atol=1e-15)  # retractions round
    opt.restore()
    params["rows"].grad[0] = torch.ones(4)
    opt.first_step()
    for name, p in params.items():
        moved = np.linalg.norm(p.detach().numpy() - points[name]).item()
        assert moved > 0.1 if name == "rows" else moved < 1e-14, name
    rows = _moved(params["rows"], torch.tensor(points["rows"]))
    assert rows[0] > 0.1
    assert max(rows[1:]) < 1e-14


# -- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("radius", RADII)
def test_that_a_part_of_the_weights_is_perturbed_as_if_it_were_all(radius, later) -> None:
    """A group with rho=0 is not perturbed and does not enter the norm; its gradient is that at the perturbed others."""
    params, points, gradients = _problem()
    chosen = ("kernels", "rows", "bias")
    part, rest = ([p for n, p in params.items() if (n in chosen) == inside] for inside in (True, False))
    opt = rsam.RSAM([{"params": part}, {"params": rest, "rho": RHO if later else 0.0}], lr=0.1, rho=RHO, radius=radius)
    opt.param_groups[1]["rho"] = 0.0
    opt.first_step()

    alone, _, _ = _problem()
    only = rsam.RSAM([alone[name] for name in chosen], lr=0.1, rho=RHO, radius=radius)
    only.first_step()
    assert opt.grad_norm == only.grad_norm
    assert opt.grad_norm == pytest.approx(
        np.sqrt(sum(np.sum(_tangent(name, points[name], gradients[name]) ** 2) for name in chosen))
    )
    for name, p in params.items():
        if name in chosen:  # to rounding, since a single point is not stacked
            torch.testing.assert_close(p.detach(), alone[name].detach(), rtol=0, atol=1e-15)
            assert np.abs(p.detach().numpy() - points[name]).max() > 1e-3
        else:
            np.testing.assert_array_equal(p.detach().numpy(), points[name])
    for p in params.values():
        p.grad.fill_(0.1)
    opt.second_step()
    for name, p in params.items():
        assert np.abs(p.detach().numpy() - points[name]).max() > 1e-3, name


def test_that_momentum_may_fill_a_ball_per_point_and_asam_one_per_parameter() -> None:
    x, g = _spheres(torch.float64)
    p = geoopt.ManifoldParameter(x.clone(), manifold=geoopt.Sphere())
    opt = rsam.RSAM([p], lr=0.1, momentum=0.9, rho=RHO, radius="point", direction="momentum", ascent="exponential")
    opt.step(closure_of(opt, lambda: (g * p).sum()))
    w, m = p.detach().clone(), opt.state[p]["momentum_buffer"].clone()
    opt.first_step()
    torch.testing.assert_close(p.detach(), np.cos(RHO) * w + np.sin(RHO) * m / m.norm(dim=1, keepdim=True))

    a, b = torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([0.0, -3.0]))
    opt = rsam.RSAM([a, b], torch.optim.SGD, lr=0.1, rho=RHO, radius="parameter", adaptive=True)
    a.grad, b.grad = torch.tensor([3.0, 2.0]), torch.tensor([7.0, 2.0])
    opt.first_step()
    # rho p^2 g / |p g| (Kwon et al. 2021, eq. 9 with p = 2), parameter by parameter
    torch.testing.assert_close(a.detach(), torch.tensor([1.0, 2.0]) + RHO * torch.tensor([3.0, 8.0]) / 5)
    torch.testing.assert_close(b.detach(), torch.tensor([0.0, -3.0 + RHO * 18 / 6]))


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("rho", [np.float16(0.25), np.float32(0.25), Fraction(1, 4)], ids=repr)
def test_that_the_radius_may_be_any_number_and_the_gradient_short(rho, radius) -> None:
    """Half precision cannot hold the quotient of both."""
    w = torch.nn.Parameter(torch.zeros(2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, rho=rho, radius=radius)
    w.grad = torch.tensor([3e-7, 4e-7])
    opt.first_step()
    torch.testing.assert_close(w.detach(), torch.tensor([0.15, 0.2]))


def test_that_half_precision_moves_along_the_shortest_gradient_it_can_hold() -> None:
    w = torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, rho=0.25)
    w.grad = torch.tensor([0.0, 2.0**-24], dtype=torch.float16)
    opt.first_step()
    assert w.tolist() == [0, 0.25]


def test_that_a_misspelt_radius_is_refused() -> None:
    with pytest.raises(ValueError, match=r"radius must be one of .*'point'.*got 'row'"):
        rsam.RSAM([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=0.1, radius="row")
