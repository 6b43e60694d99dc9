"""That equal manifolds are treated as one, as long as they are equal."""

from __future__ import annotations

import copy

import geoopt
import pytest
import torch

import rsam
from rsam.geometry import CanonicalStiefel, KernelSphere, KernelStiefel, Product
from tests.geometry.cases import IDS, MANIFOLDS, Make


def _on(*manifolds: geoopt.Manifold) -> list[geoopt.ManifoldParameter]:
    return [geoopt.ManifoldParameter(torch.tensor([0.1 * i, 0.2]), manifold=m) for i, m in enumerate(manifolds)]


def _together(*manifolds: geoopt.Manifold) -> bool:
    return len(Product(_on(*manifolds)).blocks) == 1


@pytest.mark.parametrize(("name", "make", "shape"), MANIFOLDS, ids=IDS)
def test_that_manifolds_made_alike_are_stacked(name: str, make: Make, shape: tuple[int, ...]) -> None:
    one, two = make(), make()
    x = torch.zeros(shape, dtype=torch.complex64 if name.split()[0] in ("UpperHalf", "BoundedDomain") else None)
    plain = isinstance(one, geoopt.Euclidean)  # which torch's functions for lists compute
    assert len(Product([x, x], manifolds=[one, two]).blocks) == 1 + plain
    assert len(Product([x, x], manifolds=[one, copy.deepcopy(one)]).blocks) == 1 + plain


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (geoopt.PoincareBall(1.0), geoopt.PoincareBall(2.0)),
        (geoopt.PoincareBall(), geoopt.PoincareBallExact()),
        (geoopt.Stereographic(0.1), geoopt.Stereographic(torch.tensor(0.1, dtype=torch.float64))),  # other rounding
        (geoopt.Stereographic(-1.0), geoopt.PoincareBall(1.0)),
        (geoopt.PoincareBall(learnable=True), geoopt.PoincareBall(learnable=True)),
        (geoopt.PoincareBall(), geoopt.PoincareBall(learnable=True)),
        (geoopt.Scaled(geoopt.Sphere(), 1.0), geoopt.Scaled(geoopt.Sphere(), 2.0)),
        (geoopt.Scaled(geoopt.Lorentz(1.0)), geoopt.Scaled(geoopt.Lorentz(2.0))),
        (geoopt.Scaled(geoopt.Sphere(), learnable=True), geoopt.Scaled(geoopt.Sphere(), learnable=True)),
        (
            geoopt.ProductManifold((geoopt.PoincareBall(1.0), 1), (geoopt.Lorentz(), 1)),
            geoopt.ProductManifold((geoopt.PoincareBall(2.0), 1), (geoopt.Lorentz(), 1)),
        ),
    ],
    ids=lambda manifold: str(manifold.name),
)
def test_that_manifolds_that_differ_are_not_stacked(one: geoopt.Manifold, two: geoopt.Manifold) -> None:
    assert not _together(one, two)
    assert _together(one, one)


def test_that_another_layout_metric_or_subspace_is_not_stacked() -> None:
    x = torch.zeros(2, 3, 3)
    for one, two in (
        (KernelSphere(2), KernelSphere(3)),
        (geoopt.Sphere(torch.eye(3)[:, :2]), geoopt.Sphere(torch.eye(3)[:, 1:])),
        (KernelStiefel(ndim=2), KernelStiefel(True, 2)),
        (geoopt.CanonicalStiefel(), CanonicalStiefel()),
    ):
        assert len(Product([x, x], manifolds=[one, two]).blocks) == 2


def test_that_a_class_of_ones_own_is_equal_to_itself_only() -> None:
    class Own(geoopt.PoincareBall):
        pass

    own = Own()
    assert _together(own, own) and not _together(own, Own())
    assert not _together(geoopt.Scaled(own), geoopt.Scaled(Own()))


def test_that_a_trained_curvature_is_shared_by_identity() -> None:
    one, two = geoopt.PoincareBall(learnable=True), geoopt.PoincareBall(learnable=True)
    two.isp_c = one.isp_c
    assert _together(one, two)


def _written(ball: geoopt.PoincareBall, value: torch.Tensor) -> None:
    with torch.no_grad():
        ball.isp_c.copy_(value)


def _replaced(ball: geoopt.PoincareBall, value: torch.Tensor) -> None:
    ball.isp_c = torch.nn.Parameter(value, requires_grad=False)


def _data_set(ball: geoopt.PoincareBall, value: torch.Tensor) -> None:
    ball.isp_c.data = value


def _trained(ball: geoopt.PoincareBall, value: torch.Tensor) -> None:
    ball.isp_c.requires_grad_()


@pytest.mark.parametrize("change", [_written, _replaced, _data_set, _trained])
@pytest.mark.parametrize("which", [0, 1])
def test_that_a_constant_that_changes_is_noticed(change, which: int) -> None:
    points = _on(geoopt.PoincareBall(1.0), geoopt.PoincareBall(1.0))
    space = Product(points)
    g = [torch.ones(2)] * 2
    space.raise_index(points, g)
    assert len(space.blocks) == 1 and not space.update()
    change(points[which].manifold, geoopt.PoincareBall(3.0).isp_c.data)
    alone = [Product([p]).raise_index([p], g[:1])[0] for p in points]
    torch.testing.assert_close(space.raise_index(points, g), alone)
    assert len(space.blocks) == 2 and not space.update()


def test_that_a_constant_that_changes_between_steps_is_noticed() -> None:
    def run(share: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        points = _on(*[geoopt.PoincareBall(1.0) for _ in range(3)])
        if not share:  # one optimizer for each
            optimizers = [rsam.RSAM([p], lr=0.1, momentum=0.9) for p in points]
        else:
            optimizers = [rsam.RSAM(points, lr=0.1, momentum=0.9, radius="parameter")]
        for step in range(4):
            if step == 2:
                _written(points[1].manifold, geoopt.PoincareBall(0.5).isp_c)
            for optimizer in optimizers:

                def closure(optimizer: rsam.RSAM = optimizer) -> torch.Tensor:
                    optimizer.zero_grad()
                    loss = sum(((p - 0.3) ** 2).sum() for p in optimizer.param_groups[0]["params"])
                    loss.backward()
                    return loss

                optimizer.step(closure)
        return [p.detach() for p in points]

    torch.testing.assert_close(run(share=True), run(share=False))
