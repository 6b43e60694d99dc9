"""That the manifolds that geoopt lacks have its interface, and kernels are the rows or the matrix that they hold."""

from __future__ import annotations

import geoopt
import pytest
import torch
from torch import Tensor

from rsam.geometry import CanonicalStiefel, Kernel, KernelSphere, KernelStiefel

DOUBLE = torch.float64


def sample(manifold: geoopt.Manifold, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a point, and two tangents of length about 1/2 there."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(shape, dtype=DOUBLE, generator=generator) for _ in range(3))
    x = manifold.projx(a)
    u, v = (manifold.proju(x, t) for t in (b, c))
    return x, u / (2 * manifold.norm(x, u).max()), v / (2 * manifold.norm(x, v).max())


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_that_a_batch_of_kernels_on_spheres_is_a_batch_of_its_rows() -> None:
    kernels, sphere = KernelSphere(), geoopt.Sphere()
    x, u, v = sample(kernels, 2, 3, 1, 2, 2)
    rows, us, vs = (t.flatten(2) for t in (x, u, v))
    products = sphere.inner(rows, us, vs)
    close(kernels.inner(x, u, v), products.sum(1))
    close(kernels.inner(x, u), sphere.inner(rows, us).sum(1))
    close(kernels.inner(x, u, v, keepdim=True), products.sum(1).reshape(2, 1, 1, 1, 1))
    close(kernels.component_inner(x, u, v), products.reshape(2, 3, 1, 1, 1))
    close(kernels.component_inner(x, u), sphere.inner(rows, us).reshape(2, 3, 1, 1, 1))
    close(kernels.egrad2rgrad(x, v + x).flatten(2), sphere.egrad2rgrad(rows, vs + rows))
    close(kernels.retr(x, u).flatten(2), sphere.retr(rows, us))
    y = kernels.expmap(x, u)
    close(y.flatten(2), sphere.expmap(rows, us))
    close(kernels.dist(x, y), kernels.norm(x, u))
    close(kernels.dist(x, y, keepdim=True), kernels.dist(x, y).reshape(2, 1, 1, 1, 1))
    close(kernels.logmap(x, y), u)
    # geoopt's cosines lose half the digits of short distances, 4.5e-4 of the distance to itself
    short = 1e-8 * u
    near = kernels.expmap(x, short)
    for v in (kernels.logmap(x, near), short):
        torch.testing.assert_close(kernels.dist(x, near), kernels.norm(x, v), rtol=1e-6, atol=0)
    close(kernels.dist(x, x), torch.zeros(2, dtype=DOUBLE))
    close(kernels.dist(x, -x), torch.full((2,), 3**0.5 * torch.pi, dtype=DOUBLE))


class KernelOnOneSphere(Kernel):
    """Kernels that are one unit vector each, whatever their filters."""

    def __init__(self) -> None:
        super().__init__(geoopt.Sphere(), 4)

    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(x.dim() - 4)

    def unflatten(self, y: Tensor, shape: torch.Size) -> Tensor:
        return y.reshape(shape)


def test_that_a_batch_of_kernels_that_are_one_point_each_has_one_square_per_kernel() -> None:
    # as many kernels as filters: squares of filters could be taken for those of kernels
    kernels = KernelOnOneSphere()
    x, u, _ = sample(kernels, 3, 3, 1, 2, 2)
    close(kernels.component_inner(x, u), (u * u).sum((1, 2, 3, 4), keepdim=True))


@pytest.mark.parametrize("shape", [(4, 1, 2, 3), (4, 1, 1, 3)], ids=["tall", "wide"])
def test_that_an_orthonormal_kernel_is_a_matrix(shape: tuple[int, ...]) -> None:
    kernels, stiefel = KernelStiefel(), geoopt.EuclideanStiefel()
    x, u, v = sample(kernels, *shape)
    matrix, us, vs = (t.flatten(1) if shape[-2] == 1 else t.flatten(1).mT for t in (x, u, v))
    close(matrix.mT @ matrix, torch.eye(matrix.shape[1], dtype=DOUBLE))
    close(kernels.inner(x, u, v), stiefel.inner(matrix, us, vs))
    close(kernels.component_inner(x, u, v), stiefel.inner(matrix, us, vs).reshape(1, 1, 1, 1))


TRANSPORTS = [
    (KernelSphere(), (2, 3, 1, 2, 2)),
    (KernelStiefel(), (4, 1, 2, 3)),
    (KernelStiefel(canonical=True), (4, 1, 2, 3)),
    (CanonicalStiefel(), (5, 2)),
    (CanonicalStiefel(), (3, 3)),
]


@pytest.mark.parametrize("step", ["retr", "expmap"])
@pytest.mark.parametrize(("manifold", "shape"), TRANSPORTS, ids=lambda value: getattr(value, "name", None))
def test_that_tangents_are_carried_isometrically_along_either_curve(
    manifold: geoopt.Manifold, shape: tuple[int, ...], step: str
) -> None:
    x, u, v = sample(manifold, *shape)
    y, w = getattr(manifold, f"{step}_transp")(x, u, v)
    close(y, getattr(manifold, step)(x, u))
    close(getattr(manifold, f"transp_follow_{step}")(x, u, v), w)
    for carried in (w, manifold.transp(x, y, v)):
        close(manifold.proju(y, carried), carried)
        close(manifold.inner(y, carried, carried), manifold.inner(x, v, v))
    assert manifold.check_point_on_manifold(y) and manifold.check_vector_on_tangent(y, w)


@pytest.mark.parametrize("manifold", [KernelSphere(), KernelStiefel()], ids=lambda manifold: manifold.name)
def test_that_points_are_drawn_and_others_found_out(manifold: geoopt.Manifold) -> None:
    x = manifold.random(4, 1, 2, 3, dtype=DOUBLE)
    assert (x.shape, x.dtype, x.manifold) == ((4, 1, 2, 3), DOUBLE, manifold)
    point = x.as_subclass(Tensor)
    assert manifold.check_point_on_manifold(point) and not manifold.check_point_on_manifold(2 * point)
    assert not manifold.check_vector_on_tangent(point, point)
    assert not manifold.check_point(torch.ones(4, 3)) and not KernelSphere().check_point(torch.ones(4, 1, 1, 1))
    with pytest.raises(ValueError, match="requires more than 4 dim"):
        manifold.random(4, 3)
    with pytest.raises(ValueError, match="ndim must be at least 2"):
        type(manifold)(ndim=1)
