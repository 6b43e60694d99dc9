"""That long runs in low precision stay on their manifolds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import rsam
from tests.optim.problems import closure_of, manifold_points, robust

#: Manifolds that are made of others or have the retraction of another; these are tested for fewer steps.
ALIKE = {
    "geoopt_canonical", "stereographic", "stereographic_exact", "stereographic_product", "flat_stereographic",
    "subsphere_exact", "product", "scaled", "kernel_sphere", "kernel_stiefel", "kernel_canonical", "plain",
}  # fmt: skip
APART = [name for name in manifold_points() if name not in ALIKE]
#: Manifolds with an equation or a symmetry that points can violate a little; the others are open, as balls are.
CURVED = {*manifold_points()} - {
    "ball", "ball_exact", "projected_sphere", "projected_sphere_exact", "stereographic", "stereographic_exact",
    "stereographic_product", "flat_stereographic", "plain",
}  # fmt: skip


#: Absolute and relative, a tenth of geoopt's own: a few entries of about 1, each rounded by 6e-8, and their products.
TIGHT = 1e-6


def assert_on_manifolds(points: dict[str, Tensor]) -> None:
    for name, p in points.items():
        ok, reason = p.manifold.check_point_on_manifold(p.detach(), explain=True, atol=TIGHT, rtol=TIGHT)
        assert ok, f"{name}: {reason}"


@pytest.mark.parametrize("cls", [rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
def test_that_one_step_leads_back_to_every_manifold_so_that_rounding_errors_never_add_up(cls) -> None:
    points = manifold_points(torch.float32)
    params = list(points.values())
    opt, loss = cls(params, lr=1e-3), robust(params)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in params:  # a thousand times as far as rounding takes them
            p += 1e-4 * p.abs().max() * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    away = [name for name, p in points.items() if not p.manifold.check_point_on_manifold(p.detach())]
    assert set(away) >= CURVED
    opt.step(closure_of(opt, loss))
    assert_on_manifolds(points)


# points that move for long under noise; with an ascent, which leaves nothing in the weights, fewer steps do
@pytest.mark.parametrize(
    ("names", "steps", "ascends"),
    [(APART[::2], 300, False), (APART[1::2], 300, False), (APART, 100, True), (sorted(ALIKE), 100, True)],
    ids=["retractions", "other retractions", "ascents", "manifolds with the same"],
)
def test_long_runs_in_float32_stay_on_every_manifold(names, steps, ascends) -> None:
    points = {name: p for name, p in manifold_points(torch.float32).items() if name in names}
    assert len(points) == len(names)
    params = list(points.values())
    options = {"lr": 1e-3, "momentum": 0.9}
    if ascends:
        opt = rsam.RSAM(params, rho=0.1 * len(params) ** 0.5, **options)
    else:
        opt = rsam.optim.RiemannianSGD(params, **options)
    loss = robust(params)
    generator = torch.Generator().manual_seed(0)
    noise = [torch.zeros_like(p) for p in params]

    def noisy() -> Tensor:
        return loss() + sum((p.conj() * e).real.sum() for p, e in zip(params, noise, strict=True))

    for step in range(steps):
        if step % 10 == 0:  # new targets keep the points moving; the same in both passes
            noise = [0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params]
        opt.step(closure_of(opt, noisy))
    assert_on_manifolds(points)


@pytest.mark.parametrize("transport", ["vector", "pullback", "project"])
def test_bfloat16_steps_work_and_stay_near_every_real_manifold(transport) -> None:
    points = {n: p for n, p in manifold_points(torch.float32).items() if not p.is_complex()}
    for p in points.values():
        p.data = p.data.to(torch.bfloat16)
    params = list(points.values())
    opt, loss = rsam.RSAM(params, lr=0.02, rho=0.1, transport=transport), robust(params)
    start = loss().item()
    for _ in range(25):
        opt.step(closure_of(opt, loss))
    assert loss().item() < start
    eps = torch.finfo(torch.bfloat16).eps
    for name, p in points.items():
        assert p.dtype == torch.bfloat16
        # each entry has a relative rounding error of eps/2; constraints are sums of a few products of entries
        x = p.detach().float()
        ok, reason = p.manifold.check_point_on_manifold(x, explain=True, atol=8 * eps, rtol=8 * eps)
        assert ok, f"{name}: {reason}"
