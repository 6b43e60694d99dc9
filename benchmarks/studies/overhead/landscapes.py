"""Time a landscape in units of the forward passes that its points need."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.studies.overhead.networks import network
from benchmarks.studies.overhead.section import Data, Section
from benchmarks.studies.overhead.timing import compared, interleaved, milliseconds, repeats_of, rounded

__all__ = ["PASSES", "PLANE", "measure", "report"]

LIMIT = 60.0
POINTS, EXAMPLES = 51, 256
#: Parts that are compared with each other.
PASSES, PLANE = "forward passes alone", "plane along geodesics"


def measure(repeats: int, warm_up: int) -> Data:
    """Time a plane whose kernels move on spheres, and as many forward passes as it has points."""
    model, _, batch = network("riemannian_sgd", 0.0, EXAMPLES)
    weights = list(model.parameters())
    model.eval()

    @torch.no_grad()
    def passes() -> None:
        for _ in range(POINTS**2):
            cross_entropy(model(batch[0]), batch[1])

    def plane() -> object:
        return rsam.curvature.landscape.plane(model, cross_entropy, weights, batch, steps=POINTS)

    times = rounded(interleaved({PASSES: passes, PLANE: plane}, repeats, warm_up, "landscape"))
    return {"points": POINTS, "examples": EXAMPLES, "times": times}


def report(data: Data) -> Section:
    """Compare; a table and a verdict."""
    times, points = data["times"], data["points"]
    table = compared(times, PASSES, (f"{points}×{points} points", "ms", "forward passes"))
    text = (
        f"Medians of {repeats_of(times)} interleaved repeats, small_cnn with kernels on spheres in evaluation mode, "
        f"{data['examples']} images in one batch.\n\n{table}"
    )
    seconds = milliseconds(times, PLANE) / 1e3
    kept = "" if seconds < LIMIT else "NOT "
    verdict = f"A plane of {points}×{points} points takes {seconds:.1f} seconds, {kept}under the target of {LIMIT:g}."
    return Section("Landscape", text, verdict)
