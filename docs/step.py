"""Draw ``step.svg``: one step of RSAM on a sphere, computed by the library."""

from __future__ import annotations

from pathlib import Path

import geoopt
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

import rsam

SPHERE = rsam.geometry.geometry_of(geoopt.Sphere())
CENTRES = torch.tensor([[0.62, 0.62, 0.48], [-0.55, -0.35, 0.75], [-0.35, 0.75, 0.55]], dtype=torch.float64)
HEIGHTS, SHARPNESS = torch.tensor([1.0, -1.2, 0.9], dtype=torch.float64), 5.0
#: Of the ascent and of the descent, both longer than one would choose, so that they can be seen.
RHO, RATE = 0.6, 0.5


def loss(x: torch.Tensor) -> torch.Tensor:
    """Add up a few hills and hollows on the sphere."""
    return (HEIGHTS * torch.exp(SHARPNESS * (x @ CENTRES.T / CENTRES.norm(dim=1) - 1))).sum(-1)


def gradient(x: torch.Tensor) -> torch.Tensor:
    """Return the Riemannian gradient."""
    x = x.clone().requires_grad_()
    return SPHERE.raise_index(x.detach(), torch.autograd.grad(loss(x), x)[0])


def geodesic(x: torch.Tensor, u: torch.Tensor) -> np.ndarray:
    """Return points from x along u."""
    return np.stack([SPHERE.exponential(x, t * u).numpy() for t in torch.linspace(0, 1, 40, dtype=torch.float64)])


def draw(path: Path) -> None:
    """Draw the step."""
    start = torch.tensor([0.2, 0.05, 1.0], dtype=torch.float64)
    start = start / start.norm()
    ascent = gradient(start)
    ascent = RHO * ascent / ascent.norm()
    top = SPHERE.exponential(start, ascent)
    carried = SPHERE.transport_back(start, ascent, top, gradient(top), exact=True)
    descent, plain = -RATE * carried, -RATE * gradient(start)

    figure = Figure(figsize=(6.2, 3.2))  # so small that its words can be read on a phone
    axes = figure.add_axes((0.0, 0.02, 0.5, 0.96))
    grid = np.linspace(-1, 1, 120)
    a, b = np.meshgrid(grid, grid)
    c = np.sqrt(np.clip(1 - a**2 - b**2, 0, None))
    heights = np.ma.masked_where(a**2 + b**2 > 1, loss(torch.from_numpy(np.stack((a, b, c), -1))).numpy())
    axes.contourf(a, b, heights, 12, cmap="Greys", vmax=2.2, antialiased=False)
    axes.add_patch(matplotlib.patches.Circle((0, 0), 1, fill=False, color="0.4"))
    for curve, colour in (
        (geodesic(start, ascent), "#C04A00"),
        (geodesic(start, descent), "#0072B2"),
        (geodesic(start, plain), "#777777"),
    ):
        axes.plot(*curve[:, :2].T, color=colour, linewidth=2.2)
        axes.annotate("", curve[-1, :2], curve[-4, :2], arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.2})
    axes.plot(*start[:2].numpy(), "o", color="black", markersize=5)
    axes.set(aspect="equal", xlim=(-1.03, 1.03), ylim=(-1.03, 1.03))
    axes.axis("off")
    words = (
        ("black", "a weight on the sphere;\ndark is a high loss"),
        ("#C04A00", "1  ascend along a geodesic,\n    by the angle rho"),
        ("#0072B2", "2  carry the gradient from there\n    back and descend with it"),
        ("#777777", "    where the gradient at the\n    weight would have led"),
    )
    for i, (colour, text) in enumerate(words):
        figure.text(0.52, 0.92 - 0.23 * i, text, color=colour, fontsize=13, va="top", weight="bold" if i == 0 else None)
    with matplotlib.rc_context({"svg.hashsalt": "rsam"}):
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).with_name("step.svg"))
