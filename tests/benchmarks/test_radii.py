"""That methods whose ascent has a radius for each layer or kernel move them by what they say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rsam
from benchmarks.methods import METHODS
from benchmarks.run import Run


def perturbation(method: str, rho: float, spheres: bool) -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return each parameter before the ascent, at its end, and its gradient before it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2)).double()
    if spheres:
        rsam.nn.constrain(model, rsam.geometry.KernelSphere(), nn.Conv2d)
    run = Run(None, method, 0, lr=0.1, epochs=1, rho=rho)  # type: ignore[arg-type]
    optimizer = METHODS[method].build(model, run)
    images, labels = torch.randn(6, 1, 4, 4).double(), torch.arange(6) % 2
    seen: list[dict[str, tuple[torch.Tensor, torch.Tensor]]] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        seen.append({name: (p.detach().clone(), p.grad.clone()) for name, p in model.named_parameters()})
        return loss

    optimizer.step(closure)
    before, after = seen
    return {name: (before[name][0], after[name][0], before[name][1]) for name in before}


def test_that_layerwise_sam_moves_each_parameter_by_a_part_of_its_norm_along_its_gradient() -> None:
    for x, y, gradient in perturbation("layerwise_sam", 0.1, spheres=False).values():
        torch.testing.assert_close(y - x, 0.1 * x.norm() * gradient / gradient.norm())


@pytest.mark.parametrize("method", ["rsam_kernels", "rsam_parameter_kernels", "rsam_point", "rsam_angle"])
def test_that_each_radius_moves_what_it_says(method) -> None:
    rho, moved = 0.1, {}
    for name, (x, y, _) in perturbation(method, rho, spheres=True).items():
        if x.dim() == 4:
            # on spheres the retraction turns by the arctangent of the tangent's length
            cosines = (x * y).sum((1, 2, 3))
            moved[name] = ((1 / cosines.square() - 1).clamp_min(0)).sqrt()
        else:
            moved[name] = (y - x).norm()
    (kernels,) = [moved.pop(name) for name in list(moved) if moved[name].dim()]
    if method in ("rsam_point", "rsam_angle"):
        torch.testing.assert_close(kernels, torch.full_like(kernels, rho))
    else:  # one layer: its ball is that of all kernels
        assert float(kernels.norm()) == pytest.approx(rho)
    for length in moved.values():
        assert float(length) == pytest.approx(rho if method == "rsam_point" else 0.0)
