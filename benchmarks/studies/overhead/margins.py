"""Time margins in units of an epoch's forward and backward passes."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.report.table import markdown_table
from benchmarks.studies.overhead.networks import network
from benchmarks.studies.overhead.section import Section
from benchmarks.studies.overhead.timing import interleaved, median_ratio, milliseconds

__all__ = ["report"]

LIMIT = 4.0
IMAGES, BATCH = 10_000, 250


def report(repeats: int, warm_up: int) -> Section:
    """Time and compare; a table and a verdict."""
    model, _, (inputs, labels) = network("sgd", 0.0, BATCH)
    batches = [(inputs, labels)] * (IMAGES // BATCH)
    layers = ["input", *(name for name, part in model.named_modules() if isinstance(part, torch.nn.ReLU))]
    weights = list(model.parameters())

    def epoch() -> None:
        model.train()
        for x, y in batches:
            torch.autograd.grad(cross_entropy(model(x), y), weights)

    parts = {
        "forward and backward passes of an epoch": epoch,
        "margins at the input": lambda: rsam.margins.margins(model, batches),
        f"margins at {len(layers)} layers": lambda: rsam.margins.margins(model, batches, layers),
    }
    times = interleaved(parts, repeats, warm_up, "margins")
    first, _, asked = parts
    ratios = {name: median_ratio(times, name, first) for name in parts}
    table = markdown_table(
        ("of all images", "ms", "epochs"),
        [(name, f"{milliseconds(times, name):.0f}", f"{ratios[name]:.2f}") for name in parts],
    )
    text = f"Medians of {repeats} interleaved repeats, small_cnn, {IMAGES} images in batches of {BATCH}.\n\n{table}"
    verdict = f"M{asked[1:]} cost {'' if ratios[asked] <= LIMIT else 'NOT '}at most {LIMIT:g} epochs of gradients."
    return Section("Margins", text, verdict)
