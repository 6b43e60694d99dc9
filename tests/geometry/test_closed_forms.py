"""That geometries agree with independent references: other libraries, other models of a space, dense formulas."""

import math
from collections.abc import Callable

import geoopt
import numpy as np
import pymanopt.manifolds
import pytest
import torch
from geoopt.manifolds.siegel import csym_math
from torch import Tensor

from rsam.geometry import CanonicalStiefel, Geometry, KernelSphere, KernelStiefel, geometry_of, pairing
from rsam.testing import point_from_array, tangent_from_array
from rsam.testing.points import ambient_dtype
from tests.geometry.cases import IDS, MANIFOLDS, Make

DOUBLE = torch.float64

# made in float64: geoopt stores a function of the curvature, whose rounding .double() would keep
BALL = geoopt.PoincareBall(torch.tensor(1.0, dtype=DOUBLE))
PROJECTION = geoopt.SphereProjection(torch.tensor(1.0, dtype=DOUBLE))


def sample(manifold: geoopt.Manifold, shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a point, two tangents of length about 1/2 and an ambient array."""
    generator = torch.Generator().manual_seed(seed)
    dtype = ambient_dtype(manifold, DOUBLE)
    arrays = [torch.randn(shape, dtype=dtype, generator=generator) for _ in range(4)]
    x = point_from_array(manifold, arrays[0] / 2)
    return x, tangent_from_array(manifold, x, arrays[1]), tangent_from_array(manifold, x, arrays[2]), arrays[3]


def close(actual: Tensor, expected: object, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=tolerance, atol=tolerance)


# -- other libraries ----------------------------------------------------------------------------------------------

PYMANOPT = [
    pytest.param(geoopt.Sphere(), pymanopt.manifolds.Sphere(4), (4,), id="Sphere"),
    pytest.param(KernelSphere(ndim=2), pymanopt.manifolds.Oblique(4, 3), (3, 4), id="KernelSphere"),
    pytest.param(geoopt.EuclideanStiefel(), pymanopt.manifolds.Stiefel(5, 3), (5, 3), id="Stiefel"),
    pytest.param(geoopt.SymmetricPositiveDefinite(), pymanopt.manifolds.SymmetricPositiveDefinite(3), (3, 3), id="SPD"),
    pytest.param(BALL, pymanopt.manifolds.PoincareBall(3), (3,), id="PoincareBall"),
    pytest.param(
        geoopt.Sphere(complement=torch.tensor([[1.0], [2], [0], [1]], dtype=DOUBLE)),
        pymanopt.manifolds.SphereSubspaceComplementIntersection(np.array([[1.0], [2], [0], [1]])),
        (4,),
        id="Sphere complement",
    ),
]


@pytest.mark.parametrize(("manifold", "theirs", "shape"), PYMANOPT)
def test_that_pymanopt_agrees(
    manifold: geoopt.Manifold, theirs: pymanopt.manifolds.manifold.Manifold, shape: tuple[int, ...]
) -> None:
    x, u, v, a = sample(manifold, shape)
    if isinstance(manifold, KernelSphere):

        def to(t: Tensor) -> np.ndarray:  # pymanopt's points are columns
            return t.numpy().T

        def back(t: np.ndarray) -> np.ndarray:
            return t.T
    else:

        def to(t: Tensor) -> np.ndarray:
            return t.numpy()

        def back(t: np.ndarray) -> np.ndarray:
            return t

    if isinstance(manifold, geoopt.SymmetricPositiveDefinite):
        a = (a + a.mT) / 2  # pymanopt takes symmetric gradients
    geometry = geometry_of(manifold)
    close(geometry.inner(x, u, v).sum(), theirs.inner_product(to(x), to(u), to(v)))
    close(geometry.raise_index(x, a), back(theirs.euclidean_to_riemannian_gradient(to(x), to(a))))
    close(geometry.exponential(x, u), back(theirs.exp(to(x), to(u))))
    assert geometry.dimension(x) == theirs.dim
    if not isinstance(manifold, geoopt.PoincareBall):  # pymanopt retracts along the geodesic
        close(geometry.retract(x, u), back(theirs.retraction(to(x), to(u))))


# -- other models of the same space -------------------------------------------------------------------------------


def _push(f: Callable[[Tensor], Tensor], x: Tensor, *tangents: Tensor) -> list[Tensor]:
    """Map tangents by the derivative of a map."""
    return [torch.autograd.functional.jvp(f, x, u)[1] for u in tangents]


def _to_ball(x: Tensor) -> Tensor:
    """Project the hyperboloid or the sphere stereographically, from minus its first axis."""
    return x[..., 1:] / (1 + x[..., :1])


MODELS = [
    pytest.param(geoopt.Lorentz().double(), BALL, id="hyperbolic"),
    pytest.param(geoopt.Sphere(), PROJECTION, id="spherical"),
]


@pytest.mark.parametrize(("one", "other"), MODELS)
def test_that_two_models_of_a_space_agree(one: geoopt.Manifold, other: geoopt.Manifold) -> None:
    x, u, v, _ = sample(one, (2, 4))
    first, second = geometry_of(one), geometry_of(other)
    image = _to_ball(x)
    pu, pv = _push(_to_ball, x, u, v)
    close(second.inner(image, pu, pv), first.inner(x, u, v))
    end = first.exponential(x, u)
    close(second.exponential(image, pu), _to_ball(end))
    carried = first.transport(x, u, end, v, exact=True)
    close(second.transport(image, pu, _to_ball(end), pv, exact=True), _push(_to_ball, end, carried)[0])
    for length in (1e-9, 1.0, 4.0):
        end = first.exponential(x, length * u)
        close(second.logarithm(image, _to_ball(end)), length * pu)


@pytest.mark.parametrize(("dtype", "radius"), [(torch.float32, 0.995), (DOUBLE, 0.99), (DOUBLE, 0.99998)], ids=str)
@pytest.mark.parametrize("c", [1.0, 2.5])
def test_that_logarithms_in_the_ball_reach_from_edge_to_edge(dtype: torch.dtype, radius: float, c: float) -> None:
    """geoopt clamps its inverse hyperbolic tangent, so that no distance exceeds 16.8."""
    geometry = geometry_of(geoopt.PoincareBall(torch.tensor(c, dtype=dtype)))
    eps = torch.finfo(dtype).eps
    for angle in (1e-5, 0.3, 3.0, math.pi):
        points = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=DOUBLE) * radius / c**0.5
        x, y = points.to(dtype)
        u = geometry.logarithm(x, y)
        # distances of the rounded points: in the half plane and the ball sinh(d/2)^2 = |x - y|^2 c / (...)(...)
        (p, q), w = (x.double(), y.double()), y.double() - x.double()
        half = ((w @ w) * c / ((1 - c * p @ p) * (1 - c * q @ q))).sqrt().asinh()
        # rounding of 1 - c |x|^2, which is 2 eps / (1 - radius), scales lengths near the edge
        close(geometry.inner(x, u, u).sqrt().double(), 2 * half[None] / c**0.5, 8 * eps / (1 - radius))
        if dtype == DOUBLE and radius < 0.999:
            close(geometry.exponential(x, u), y, 1e-11)


def test_that_the_logarithm_in_the_ball_can_be_differentiated_at_equal_points() -> None:
    for k in (-1.5, 0.0, 0.7):
        geometry = geometry_of(geoopt.Stereographic(torch.tensor(k, dtype=DOUBLE)))
        x = torch.tensor([0.3, -0.4], dtype=DOUBLE)
        slope = torch.autograd.functional.jacobian(lambda y, g=geometry, x=x: g.logarithm(x, y), x)
        close(slope, torch.eye(2, dtype=DOUBLE))
        close(geometry.logarithm(x, x), torch.zeros(2, dtype=DOUBLE))


def test_that_neighbours_of_antipodes_are_half_a_circle_away_and_antipodes_have_no_logarithm() -> None:
    sphere, projection = geometry_of(geoopt.Sphere()), geometry_of(PROJECTION)
    x = torch.tensor([0.6, 0.8, 0.0], dtype=DOUBLE)
    for off in (1e-3, 1e-6, 1e-12):
        y = sphere.project_point(torch.tensor([0, 0, off], dtype=DOUBLE) - x)
        u = sphere.logarithm(x, y)
        v = projection.logarithm(_to_ball(x), _to_ball(y))
        for geometry, at, tangent in ((sphere, x, u), (projection, _to_ball(x), v)):
            close(geometry.inner(at, tangent, tangent).sqrt(), torch.tensor([math.pi - off], dtype=DOUBLE), 1e-9)
    assert sphere.logarithm(x, -x).isnan().all()  # before, zero
    p = torch.tensor([0.5, 0.0], dtype=DOUBLE)
    assert projection.logarithm(p, -4 * p).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_that_logarithms_near_antipodes_are_tangents_or_nan(dtype: torch.dtype) -> None:
    """Before, most were rounding errors along the point: the norm of a point differs from 1 by one."""
    sphere, eps = geometry_of(geoopt.Sphere()), torch.finfo(dtype).eps
    generator = torch.Generator().manual_seed(0)
    x, aside = sphere.project_point(torch.randn(2, 50, 7, dtype=DOUBLE, generator=generator)).to(dtype)
    assert sphere.logarithm(x, -x).isnan().all()
    for off in (100 * eps, eps**0.5):
        u = sphere.logarithm(x, sphere.project_point(off * aside - x))
        assert (x * u).sum(-1).abs().max() < 8 * eps  # the rounding of a sum of products of at most pi
        # the distance is half a circle but for the offset
        close(u.norm(dim=-1), torch.full((50,), math.pi, dtype=dtype), 2 * off)


def test_that_the_metric_of_the_bounded_domain_is_that_of_the_half_space() -> None:
    z, u, v, _ = sample(geoopt.BoundedDomain(), (2, 3, 3))
    pu, pv = _push(csym_math.cayley_transform, z, u, v)
    image = csym_math.cayley_transform(z)
    close(
        geometry_of(geoopt.BoundedDomain()).inner(z, u, v), geometry_of(geoopt.UpperHalf()).inner(image, pu, pv), 1e-9
    )


def test_that_the_metric_of_the_siegel_spaces_is_that_of_their_distance() -> None:
    for manifold in (geoopt.UpperHalf(), geoopt.BoundedDomain()):
        z, u, _, _ = sample(manifold, (2, 2))
        geometry = geometry_of(manifold)
        u = u * 1e-3 / geometry.inner(z, u, u).sqrt()
        # from the midpoint to both sides, so that the error is of third order
        close(manifold.dist(z - u / 2, z + u / 2), torch.tensor(1e-3, dtype=DOUBLE), 1e-5)


#: Manifolds with a distance of geoopt's that is right, unlike that of the sphere.
MEASURED = (
    "Stereographic k",
    "PoincareBall",
    "SphereProjection",
    "Lorentz",
    "SPD",
    "Scaled PoincareBall",
    "Scaled Lorentz",
)


@pytest.mark.parametrize(
    ("name", "make", "shape"),
    [c for c in MANIFOLDS if c[0].startswith(MEASURED)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_that_a_geodesic_is_as_long_as_the_distance_of_its_ends(name: str, make: Make, shape: tuple[int, ...]) -> None:
    manifold = make().double()
    x, u, _, _ = sample(manifold, shape)
    geometry = geometry_of(manifold)
    # squared, since the root of a sum has no digits left where a distance is zero
    close((manifold.dist(x, geometry.exponential(x, u)) ** 2).sum(), geometry.squared_norm(x, u), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_that_points_of_a_ball_are_clipped_where_geoopt_clips_them(dtype: torch.dtype) -> None:
    ball = geoopt.PoincareBall(torch.tensor(1.5, dtype=dtype))
    x = torch.tensor([[3.0, 4.0], [0.8, 0.15], [0.1, 0.2]], dtype=dtype)
    inside, eps = torch.full_like(x, 0.1), torch.finfo(dtype).eps
    assert not torch.equal(ball.projx(x[:2]), x[:2])
    close(geometry_of(ball).project_point(x), ball.projx(x), 4 * eps)
    close(geometry_of(ball).retract(inside, x - inside), ball.projx(x), 4 * eps)


# -- formulas -----------------------------------------------------------------------------------------------------


def test_that_transport_on_the_sphere_turns_in_the_plane_of_the_geodesic() -> None:
    x, u, v, _ = sample(geoopt.Sphere(), (4,))
    geometry = geometry_of(geoopt.Sphere())
    t = u.norm()
    direction = u / t
    along = direction @ v
    expected = v - along * direction + along * (t.cos() * direction - t.sin() * x)
    close(geometry.transport(x, u, geometry.exponential(x, u), v, exact=True), expected)


def test_that_transport_of_spd_is_congruence_by_half_the_step() -> None:
    x, u, v, _ = sample(geoopt.SymmetricPositiveDefinite(), (3, 3))
    geometry = geometry_of(geoopt.SymmetricPositiveDefinite())
    half = torch.matrix_exp(u @ torch.linalg.inv(x) / 2)
    close(geometry.transport(x, u, geometry.exponential(x, u), v, exact=True), half @ v @ half.mT)


def test_that_momentum_of_spd_is_carried_by_the_congruence_of_half_the_step() -> None:
    x, u, v, _ = sample(geoopt.SymmetricPositiveDefinite(), (3, 3))
    e = torch.eye(3, dtype=DOUBLE) + u @ x.inverse()
    geometry = geometry_of(geoopt.SymmetricPositiveDefinite())
    y, carried = geometry.retract_transport(x, u, v, 2.0)
    close(carried, e @ v @ e.mT)
    assert float(geometry.inner(y, carried, carried)) <= float(geometry.inner(x, v, v))


def test_that_momentum_in_the_ball_keeps_its_length_where_a_step_is_clipped() -> None:
    geometry = geometry_of(BALL)
    x, u, v = torch.tensor([[0.5, 0.3], [3.0, 4.0], [0.2, -0.1]], dtype=DOUBLE)
    y, carried = geometry.retract_transport(x, u, v, 2.0)
    close(y, geometry.retract(x, 2 * u))
    close(geometry.inner(y, carried, carried), geometry.inner(x, v, v))


def dense_rotation(x: Tensor, u: Tensor, exact: bool = False) -> Tensor:
    """Compute the orthogonal matrix of a canonical step: Cayley transform or exponential of the skew from x to u."""
    eye = torch.eye(x.shape[0], dtype=x.dtype)
    pu = (eye - x @ x.mT / 2) @ u
    w = pu @ x.mT - x @ pu.mT
    return torch.matrix_exp(w) if exact else torch.linalg.solve(eye - w / 2, eye + w / 2)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("n", "p"), [(7, 2), (9, 4), (3, 3), (5, 1)])
def test_that_the_low_rank_canonical_step_is_the_dense_one(n: int, p: int, exact: bool) -> None:
    x, u, v, _ = sample(CanonicalStiefel(), (n, p))
    geometry = geometry_of(CanonicalStiefel())
    q = dense_rotation(x, u, exact)
    y = geometry.curve(x, u, exact)
    close(y, q @ x)
    close(geometry.transport(x, u, y, v, exact), q @ v)
    close(geometry.transport_back(x, u, y, q @ v, exact), v)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("shape", [(64, 64), (64, 20), (64, 8)])
def test_that_huge_canonical_steps_are_rotations(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    # as large as exploding gradients of a recurrent network: the step's rounding errors exceed the identity
    manifold, generator = CanonicalStiefel(), torch.Generator().manual_seed(0)
    x = point_from_array(manifold, torch.randn(shape, dtype=dtype, generator=generator))
    rows, columns = (torch.randn(n, dtype=dtype, generator=generator) for n in shape)
    u = manifold.proju(x, torch.outer(rows, columns))
    v = manifold.proju(x, torch.randn(shape, dtype=dtype, generator=generator))
    geometry, eps = geometry_of(manifold), torch.finfo(dtype).eps
    # rounding errors of a rotation are eps L^2, with L = 2 eps^(-1/4) for longer steps
    rounding = 4 * eps**0.5
    for size in torch.logspace(0, 16, 33):
        step = u * (size / u.norm())
        y = geometry.retract(x, step)
        # Newton-Schulz squares these to 16 eps, and each entry of the product is a sum of 64 terms
        close(y.mT @ y, torch.eye(shape[1], dtype=dtype), 64 * eps)
        w = geometry.transport(x, step, y, v)
        close(geometry.inner(y, w, w), geometry.inner(x, v, v), rounding)
        close(geometry.project(y, w), w, rounding)
        if size < 60:  # not shortened in either precision
            close(y.double(), dense_rotation(x.double(), step.double()) @ x.double(), rounding)


def test_that_the_projection_onto_doubly_stochastic_tangents_is_orthogonal() -> None:
    x, u, _, a = sample(geoopt.BirkhoffPolytope(), (4, 4))
    geometry = geometry_of(geoopt.BirkhoffPolytope())
    close(geometry.inner(x, a - geometry.project(x, a), u), torch.zeros(1, 1, dtype=DOUBLE))


def test_that_doubly_stochastic_points_near_the_boundary_are_exact() -> None:
    # Sinkhorn's sweeps alone would take thousands here
    geometry = geometry_of(geoopt.BirkhoffPolytope())
    x = geometry.project_point(torch.tensor([[1, 1e-4, 1e-4], [1e-4, 0.3, 1], [1e-4, 1, 0.3]], dtype=DOUBLE))
    close(x.sum(-1), torch.ones(3, dtype=DOUBLE))
    close(x.sum(-2), torch.ones(3, dtype=DOUBLE))


def test_that_geodesics_of_the_half_plane_are_circles() -> None:
    # from i to the right with unit speed: tanh t + i / cosh t, which is i + t - i t^2 / 2 to second order
    geometry = geometry_of(geoopt.UpperHalf())
    x, v = torch.tensor([[1j]], dtype=torch.complex128), torch.tensor([[1 + 0j]], dtype=torch.complex128)
    close(geometry.inner(x, v, v), torch.ones(1, 1, dtype=DOUBLE))
    close(geometry.acceleration(x, v), torch.tensor([[-1j]], dtype=torch.complex128))


OPEN = [
    pytest.param(geoopt.UpperHalf(), (2, 2), id="UpperHalf"),
    pytest.param(geoopt.BoundedDomain(), (2, 2), id="BoundedDomain"),
    pytest.param(geoopt.SymmetricPositiveDefinite(), (3, 3), id="SPD"),
    pytest.param(BALL, (3,), id="PoincareBall"),
    pytest.param(PROJECTION, (3,), id="SphereProjection"),
]


@pytest.mark.parametrize(("manifold", "shape"), OPEN)
def test_that_the_acceleration_satisfies_the_geodesic_equation(
    manifold: geoopt.Manifold, shape: tuple[int, ...]
) -> None:
    # <a, w> = D<v, v>[w] / 2 - D<v, w>[v], by derivatives of the metric in these independent coordinates
    x, v, w, _ = sample(manifold, shape)
    geometry = geometry_of(manifold)

    def derivative(one: Tensor, other: Tensor, along: Tensor) -> Tensor:
        return torch.autograd.functional.jvp(lambda y: geometry.inner(y, one, other).sum(), x, along)[1]

    expected = derivative(v, v, w) / 2 - derivative(v, w, v)
    close(geometry.inner(x, geometry.acceleration(x, v), w).sum(), expected)


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=IDS)
def test_that_lowering_in_closed_form_is_lowering_by_autograd(name: str, make: Make, shape: tuple[int, ...]) -> None:
    manifold = make().double()
    x, u, v, _ = sample(manifold, shape)
    geometry = geometry_of(manifold)
    generic = Geometry.lower_index(geometry, x, u)
    close(pairing([geometry.lower_index(x, u)], [v]), pairing([generic], [v]), 1e-10)
    close(geometry.raise_index(x, generic), u, 1e-10)


def test_that_a_kernel_is_its_flattened_self() -> None:
    weight = torch.randn(6, 2, 2, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    rows = geometry_of(geoopt.Sphere()).project_point(weight.flatten(1))
    close(geometry_of(KernelSphere()).project_point(weight), rows.reshape(weight.shape))
    wide = geometry_of(geoopt.EuclideanStiefel()).project_point(weight.flatten(1))  # more filters than numbers in each
    close(geometry_of(KernelStiefel()).project_point(weight), wide.reshape(weight.shape))
    tall = geometry_of(geoopt.EuclideanStiefel()).project_point(weight[:3].flatten(1).mT)
    close(geometry_of(KernelStiefel()).project_point(weight[:3]), tall.mT.reshape(3, 2, 2, 1))


def test_that_steep_rows_of_doubly_stochastic_matrices_are_only_scaled() -> None:
    """Before, factors below 1e-12 were raised to that, which moved the point, and its derivative with it."""
    geometry = geometry_of(geoopt.BirkhoffPolytope())
    x = geometry.project_point(
        torch.tensor([[0.044, 0.166, 0.79], [0.209, 0.79, 0.0009], [0.747, 0.044, 0.209]], dtype=torch.float64)
    )
    steep = torch.tensor(
        [[0.013, 0.001, -0.014], [-0.010, -0.016, 0.026], [-0.003, 0.015, -0.012]], dtype=torch.float64
    )
    u = geometry.project(x, steep)
    assert (u / x).amax() - (u / x).amin() > 28  # beyond 1e-12
    factors = geometry.retract(x, u).log() - x.log() - u / x
    # the logarithm of a factor of each row and one of each column: nothing is left once both are taken away
    centred = factors - factors.mean(0) - factors.mean(1, keepdim=True) + factors.mean()
    torch.testing.assert_close(centred, torch.zeros_like(centred), rtol=0, atol=1e-9)
