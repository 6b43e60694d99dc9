"""That the Hessian on every manifold gives second derivatives along geodesics, and traces over tangent bases."""

from __future__ import annotations

import math

import geoopt
import pytest
import torch
from geoopt.manifolds.siegel.siegel import SiegelManifold
from torch import Tensor, nn

from rsam import geometry
from rsam.curvature import RiemannianGaussNewton, RiemannianHessian, gradient_norm, landscape, sharpness, trace
from rsam.geometry import UnsupportedOperation, geometry_of
from tests.curvature.problems import Batch, Probed, along, dense, normal, probed, risk_at, second_difference
from tests.geometry.cases import MANIFOLDS, Make

MSE = nn.MSELoss()
CURVED = [case for case in MANIFOLDS if not case[0].startswith("Birkhoff")]
each_manifold = pytest.mark.parametrize(("name", "make", "shape"), CURVED, ids=[name for name, _, _ in CURVED])


def hessian_of(model: Probed, batch: Batch) -> RiemannianHessian:
    return RiemannianHessian(model, MSE, model.parameters(), batch)


@each_manifold
def test_that_quadratic_forms_are_second_derivatives_along_geodesics(
    name: str, make: Make, shape: tuple[int, ...]
) -> None:
    model, batch = probed(make(), shape)
    hessian, risk = hessian_of(model, batch), risk_at(model, batch)
    # the Siegel spaces have no exponential; their second-order step is tested with their geometry
    exact = not isinstance(model.point.manifold, SiegelManifold)
    for seed in range(3):
        z = normal(hessian.shape[1], seed=seed)
        z /= z.norm()
        tangents = hessian.tangents(z)
        expected = second_difference(lambda t, v=tangents: float(risk(along([model.point], v, t, exact)[0])))
        assert abs(float(z @ (hessian @ z)) - expected) <= 1e-5 * abs(expected)


@each_manifold
def test_that_hessians_are_symmetric(name: str, make: Make, shape: tuple[int, ...]) -> None:
    matrix = dense(hessian_of(*probed(make(), shape)))
    assert float((matrix - matrix.mT).abs().max()) <= 1e-10 * float(matrix.abs().max())


def orthonormal_basis(x: Tensor, manifold: geoopt.Manifold, count: int) -> list[Tensor]:
    """Orthonormalise projected noise by Gram and Schmidt in the metric, twice because of rounding."""
    on = geometry_of(manifold)
    basis: list[Tensor] = []
    for seed in range(count):
        v = on.project(x, normal(*x.shape, seed=seed, dtype=x.dtype))
        for _ in range(2):
            for b in basis:
                v = v - on.inner(x, b, v).sum().real * b
            v = v / on.inner(x, v, v).sum().real.sqrt()
        basis.append(v)
    return basis


def real(t: Tensor) -> Tensor:
    return (torch.view_as_real(t) if t.is_complex() else t).flatten()


@each_manifold
def test_that_the_trace_is_the_sum_over_any_orthonormal_basis(name: str, make: Make, shape: tuple[int, ...]) -> None:
    model, batch = probed(make(), shape)
    hessian, risk, x = hessian_of(model, batch), risk_at(model, batch), model.point.detach()

    def ambient(values: Tensor) -> Tensor:
        return risk(torch.view_as_complex(values.reshape(*x.shape, 2)) if x.is_complex() else values.reshape(x.shape))

    gradient = torch.autograd.functional.jacobian(ambient, real(x))
    matrix = torch.autograd.functional.hessian(ambient, real(x))
    expected = 0.0
    for v in orthonormal_basis(x, model.point.manifold, hessian.shape[0]):
        a = geometry_of(model.point.manifold).acceleration(x, v)
        expected += float(real(v) @ matrix @ real(v) + gradient @ real(a))
    assert float(trace(hessian, method="exact")) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=[name for name, _, _ in MANIFOLDS])
def test_that_the_gradient_norm_is_that_of_the_slopes_along_a_basis(
    name: str, make: Make, shape: tuple[int, ...]
) -> None:
    model, batch = probed(make(), shape)
    x = model.point.detach()
    gradient = real(torch.autograd.functional.jacobian(risk_at(model, batch), x))
    basis = orthonormal_basis(x, model.point.manifold, geometry_of(model.point.manifold).dimension(x))
    expected = torch.stack([gradient @ real(b) for b in basis]).norm()
    ours = gradient_norm(model, MSE, model.parameters(), batch)
    assert ours == pytest.approx(float(expected), rel=1e-8)


# -- closed forms: G and H are the Euclidean gradient and Hessian, P projects onto the tangents -----------------------


def ambient_derivatives(model: Probed, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    x, risk = model.point.detach(), risk_at(model, batch)
    n = x.numel()
    return (
        x,
        torch.autograd.functional.jacobian(risk, x),
        torch.autograd.functional.hessian(risk, x).reshape(n, n),
    )


def projector(x: Tensor, manifold: geoopt.Manifold) -> Tensor:
    units = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    return torch.stack([geometry_of(manifold).project(x, e).flatten() for e in units], 1)


def test_that_the_trace_on_a_sphere_has_its_closed_form() -> None:
    model, batch = probed(geoopt.Sphere(), (5,))
    x, g, h = ambient_derivatives(model, batch)
    p = torch.eye(5, dtype=x.dtype) - torch.outer(x, x)
    expected = (p @ h @ p).trace() - 4 * x @ g
    assert float(trace(hessian_of(model, batch), method="exact")) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize(("n", "p"), [(5, 2), (4, 4), (4, 1)])
def test_that_the_trace_on_orthonormal_frames_has_its_closed_form(n: int, p: int) -> None:
    model, batch = probed(geoopt.EuclideanStiefel(), (n, p))
    x, g, h = ambient_derivatives(model, batch)
    onto = projector(x, model.point.manifold)
    expected = (onto @ h @ onto).trace() - (n - (p + 1) / 2) * (x * g).sum()
    assert float(trace(hessian_of(model, batch), method="exact")) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("c", [1.0, 0.25])
def test_that_the_trace_on_the_poincare_ball_has_its_closed_form(c: float) -> None:
    model, batch = probed(geoopt.PoincareBall(torch.tensor(c, dtype=torch.float64)), (4,))
    x, g, h = ambient_derivatives(model, batch)
    stretch = 2 / (1 - c * x @ x)
    expected = (h.trace() + c * (4 - 2) * stretch * x @ g) / stretch**2
    assert float(trace(hessian_of(model, batch), method="exact")) == pytest.approx(float(expected), rel=1e-10)


def test_that_the_trace_on_positive_definite_matrices_has_its_closed_form() -> None:
    model, batch = probed(geoopt.SymmetricPositiveDefinite(), (3, 3))
    x, g, h = ambient_derivatives(model, batch)
    values, vectors = torch.linalg.eigh(x)
    root = vectors * values.sqrt() @ vectors.mT
    expected = float(2 * (x * g).sum())  # (n + 1) / 2
    for i in range(3):
        for j in range(i + 1):
            e = torch.zeros(3, 3, dtype=x.dtype)
            e[i, j] = e[j, i] = 1 if i == j else math.sqrt(0.5)
            b = (root @ e @ root).flatten()
            expected += float(b @ h @ b)
    assert float(trace(hessian_of(model, batch), method="exact")) == pytest.approx(expected, rel=1e-10)


# -- without a closed form in rsam ------------------------------------------------------------------------------------


def test_that_a_manifold_without_geodesics_is_named_together_with_the_parameter() -> None:
    model, batch = probed(geoopt.BirkhoffPolytope(), (3, 3))
    plain = nn.Parameter(torch.ones(1, dtype=torch.float64))

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.inside = plain, model

        def forward(self, arrays: Tensor) -> Tensor:
            return self.inside(arrays) + self.shift

    shifted = Shifted()
    hessian = RiemannianHessian(shifted, MSE, shifted.parameters(), batch)
    with pytest.raises(UnsupportedOperation, match=r"inside\.point \(shape \(3, 3\), Birkhoff.*no exponential"):
        hessian @ torch.ones(hessian.shape[1], dtype=torch.float64)


class Users(geoopt.Manifold):
    """Geometry of a user, with the methods that it has to define."""

    reversible = False

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        raise NotImplementedError

    def projx(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        return self.expmap(x, u)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        return True, None

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        return True, None


class Positive(Users):
    """Positive numbers with the flat metric of their logarithms."""

    name, ndim = "Positive", 1

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return (u * (u if v is None else v) / x**2).sum(-1, keepdim=keepdim)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return x**2 * u

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return x * torch.exp(u / x)


class Rotations(Users):
    """Orthogonal matrices with half the metric of the embedding."""

    name, ndim = "Rotations", 2

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        return (u * (u if v is None else v)).sum((-2, -1), keepdim=keepdim) / 2

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return (u - x @ u.mT @ x) / 2

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        return 2 * self.proju(x, u)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return x @ torch.matrix_exp(x.mT @ u)


@pytest.mark.parametrize(
    ("manifold", "x"),
    [
        (Positive(), normal(2, 3).exp()),
        (Rotations(), torch.matrix_exp(normal(3, 3) - normal(3, 3).mT)),
        (Rotations(), torch.matrix_exp(normal(2, 3, 3) - normal(2, 3, 3).mT)),
    ],
    ids=["Positive 2x3", "Rotations 3x3", "Rotations 2x3x3"],
)
def test_that_a_users_manifold_works_without_being_registered(manifold: geoopt.Manifold, x: Tensor) -> None:
    model = Probed(x, manifold)
    batch = normal(6, 3, x.numel(), seed=2) / 3, normal(6, 3, seed=3)
    hessian, risk = hessian_of(model, batch), risk_at(model, batch)
    for seed in range(3):
        z = normal(hessian.shape[1], seed=seed)
        z /= z.norm()
        (v,) = hessian.tangents(z)
        assert float(manifold.inner(x, v).sum()) == pytest.approx(1, rel=1e-12)
        expected = second_difference(lambda t, v=v: float(risk(manifold.expmap(x, t * v))))
        assert abs(float(z @ (hessian @ z)) - expected) <= 1e-5 * abs(expected)
    matrix = dense(hessian)
    torch.testing.assert_close(matrix, matrix.mT, rtol=0, atol=1e-10)


def test_that_coordinates_undo_tangents_and_measure_them() -> None:
    model, batch = probed(geoopt.SymmetricPositiveDefinite(), (3, 3))
    hessian = hessian_of(model, batch)
    z = normal(6)
    tangents = hessian.tangents(z)
    assert not tangents[0].requires_grad
    torch.testing.assert_close(hessian.coordinates(tangents), z)
    norm = geometry.Product([model.point]).norm([model.point], tangents)
    assert float(norm.detach()) == pytest.approx(float(z.norm()))


@pytest.mark.parametrize(
    "measure",
    [RiemannianHessian, RiemannianGaussNewton, gradient_norm, sharpness, landscape.line, landscape.plane],
    ids=lambda measure: measure.__name__,
)
def test_that_points_off_their_manifold_are_warned_of_once(measure) -> None:
    model, batch = probed(geoopt.Sphere(), (4,))
    with torch.no_grad():
        model.point.mul_(1.3)
    options = {"steps": 2} if measure in (landscape.line, landscape.plane) else {}
    with pytest.warns(UserWarning, match=r"off its manifold by 0\.\d") as caught:
        measure(model, MSE, model.parameters(), batch, **options)
    assert [warning.filename for warning in caught] == [__file__]
