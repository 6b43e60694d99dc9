"""Time margins in units of an epoch's forward and backward passes."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.studies.overhead.networks import network
from benchmarks.studies.overhead.section import Data, Section
from benchmarks.studies.overhead.timing import compared, interleaved, median_ratio, repeats_of, rounded

__all__ = ["FOUR_LAYERS", "PASSES", "measure", "report"]

LIMIT = 4.0
IMAGES, BATCH = 10_000, 250
#: Parts that are compared with each other.
PASSES, FOUR_LAYERS = "forward and backward passes of an epoch", "margins at 4 layers"


def measure(repeats: int, warm_up: int) -> Data:
    """Time margins and passes."""
    model, _, (inputs, labels) = network("sgd", 0.0, BATCH)
    batches = [(inputs, labels)] * (IMAGES // BATCH)
    layers = ["input", *(name for name, part in model.named_modules() if isinstance(part, torch.nn.ReLU))]
    weights = list(model.parameters())

    def epoch() -> None:
        model.train()
        for x, y in batches:
            torch.autograd.grad(cross_entropy(model(x), y), weights)

    parts = {
        PASSES: epoch,
        "margins at the input": lambda: rsam.margins.margins(model, batches),
        f"margins at {len(layers)} layers": lambda: rsam.margins.margins(model, batches, layers),
    }
    times = rounded(interleaved(parts, repeats, warm_up, "margins"))
    return {"images": IMAGES, "batch": BATCH, "times": times}


def report(data: Data) -> Section:
    """Compare; a table and a verdict."""
    times = data["times"]
    table = compared(times, PASSES, ("over all images", "ms", "epochs"))
    text = (
        f"Medians of {repeats_of(times)} interleaved repeats, small_cnn, {data['images']} images in batches of "
        f"{data['batch']}.\n\n{table}"
    )
    kept = median_ratio(times, FOUR_LAYERS, PASSES).estimate <= LIMIT
    verdict = f"M{FOUR_LAYERS[1:]} cost {'' if kept else 'NOT '}at most {LIMIT:g} epochs of gradients."
    return Section("Margins", text, verdict)
