"""Define small problems for the optimizer tests."""

from __future__ import annotations

from collections.abc import Callable

import geoopt
import torch
from torch import Tensor, nn

import rsam


def network(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Make a two-layer network with plain parameters, and its loss."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)
    inputs = torch.randn(20, 5, generator=generator, dtype=dtype)
    targets = torch.randint(3, (20,), generator=generator)
    return model, lambda: nn.functional.cross_entropy(model(inputs), targets)


def manifold_points(dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, geoopt.ManifoldParameter]:
    """Make one parameter on each kind of manifold."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, like: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(like)

    hyperbolic = normal(3, 4)
    spd = normal(2, 3, 3)
    complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
    z = normal(3, 3) + 1j * normal(3, 3)
    half = (z + z.mT) / 2
    y = normal(3, 3)
    half = torch.complex(half.real.double(), (y @ y.mT + torch.eye(3, dtype=dtype)).double()).to(complex_dtype)
    domain = ((z + z.mT) / 16).to(complex_dtype)
    product = geoopt.ProductManifold(
        (geoopt.Sphere(), 3), (geoopt.EuclideanStiefel(), (4, 2)), (geoopt.Euclidean(1), 2)
    )
    mixed = geoopt.StereographicProductManifold((geoopt.SphereProjection(), 3), (geoopt.PoincareBall(), 2))
    raw = {
        "sphere": (geoopt.Sphere(), normal(3, 4)),
        "sphere_exact": (geoopt.SphereExact(), normal(3, 4)),
        "stiefel": (geoopt.EuclideanStiefel(), normal(2, 5, 2)),
        "stiefel_exact": (geoopt.EuclideanStiefelExact(), normal(5, 2)),
        "canonical": (rsam.geometry.CanonicalStiefel(), normal(5, 2)),
        "canonical_square": (rsam.geometry.CanonicalStiefel(), normal(3, 3)),
        "geoopt_canonical": (geoopt.CanonicalStiefel(), normal(5, 2)),
        "ball": (geoopt.PoincareBall(), 0.2 * normal(3, 4)),
        "ball_exact": (geoopt.PoincareBallExact(), 0.2 * normal(3, 4)),
        "projected_sphere": (geoopt.SphereProjection(), normal(3, 4)),
        "stereographic": (geoopt.Stereographic(-0.5), 0.2 * normal(3, 4)),
        "stereographic_exact": (geoopt.StereographicExact(0.5), 0.2 * normal(3, 4)),
        "projected_sphere_exact": (geoopt.SphereProjectionExact(), 0.5 * normal(3, 4)),
        "stereographic_product": (mixed, 0.3 * normal(2, 5)),
        "flat_stereographic": (geoopt.Stereographic(0.0), normal(3, 4)),
        "subsphere": (geoopt.Sphere(intersection=normal(4, 3)), normal(3, 4)),
        "subsphere_exact": (geoopt.SphereExact(complement=normal(4, 1)), normal(3, 4)),
        "lorentz": (geoopt.Lorentz(torch.tensor(1.0, dtype=dtype)), hyperbolic),
        "spd": (geoopt.SymmetricPositiveDefinite(), 0.2 * spd @ spd.mT + torch.eye(3, dtype=dtype)),
        "birkhoff": (geoopt.BirkhoffPolytope(), normal(4, 4).exp()),
        "upper_half": (geoopt.UpperHalf(), half),
        "bounded_domain": (geoopt.BoundedDomain(), domain),
        "product": (product, normal(2, 13)),
        "scaled": (geoopt.Scaled(geoopt.Sphere(), 2.0), normal(3, 4)),
        "kernel_sphere": (rsam.geometry.KernelSphere(), normal(4, 2, 3, 3)),
        "kernel_stiefel": (rsam.geometry.KernelStiefel(), normal(4, 2, 3, 3)),
        "kernel_canonical": (rsam.geometry.KernelStiefel(canonical=True), normal(4, 2, 3, 3)),
        "plain": (geoopt.Euclidean(), normal(4)),
    }
    points = {}
    for name, (manifold, x) in raw.items():
        x = rsam.geometry.geometry_of(manifold).project_point(x)
        points[name] = geoopt.ManifoldParameter(x.contiguous(), manifold=manifold)
    return points


def robust(points: list[Tensor]) -> Callable[[], Tensor]:
    """Return a smooth loss with bounded gradients, so that a fixed learning rate does not diverge in any metric.

    It pulls each point to a cyclic shift of its start, which for most manifolds is on the manifold too.
    """
    targets = [p.detach().roll(1, -1).clone() for p in points]

    def loss() -> Tensor:
        return sum(
            (torch.log1p((p - a).abs() ** 2).sum() for p, a in zip(points, targets, strict=True)), torch.zeros(())
        )

    return loss


def closure_of(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Make a closure for ``step``."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


def copies(params) -> list[torch.Tensor]:
    return [p.detach().clone() for p in params]


def equal(params, others) -> bool:
    return all(torch.equal(p, o) for p, o in zip(params, others, strict=True))
