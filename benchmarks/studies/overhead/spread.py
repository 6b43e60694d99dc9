"""Measure the spread of estimates of the Hessian's trace."""

from __future__ import annotations

import contextlib
import io
from statistics import mean, stdev

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.report.table import markdown_table
from benchmarks.run import Run
from benchmarks.runs.training import train_model
from benchmarks.studies.overhead import curvature
from benchmarks.studies.overhead.section import Section
from benchmarks.workloads.images import Images

__all__ = ["report"]

LIMIT = 0.5
PROBES = 18


def report(seeds: int) -> Section:
    """Estimate and compare; a table and a verdict."""
    rows, ratios = [], {}
    for name, model in _trained().items():
        hessian = curvature.hessian(model.eval(), curvature.batch())
        spreads = {}
        for method in ("hutchinson", "xtrace"):
            values = [float(rsam.curvature.trace(hessian, PROBES, method=method, seed=seed)) for seed in range(seeds)]
            spreads[method] = stdev(values) / abs(mean(values))
            rows.append((f"{name}, {method}", f"{mean(values):.1f}", f"{100 * spreads[method]:.1f}"))
        ratios[name] = spreads["xtrace"] / spreads["hutchinson"]
    table = markdown_table(("network, method", "mean", "standard deviation, %"), rows)
    ratio = ratios["wide_plain_cnn"]
    text = (
        f"wide_plain_cnn (no batch norm) after 100 steps on the batch, small_cnn (batch "
        f"norm) after 5 epochs; batch {curvature.BATCH}, {PROBES} products, {seeds} seeds.\n\n{table}"
    )
    verdict = (
        f"XTrace's spread is {ratio:.2f} of Hutchinson's where few eigenvalues dominate, on wide_plain_cnn, "
        f"{'' if ratio <= LIMIT else 'NOT '}at most half. On small_cnn, with many alike, it is "
        f"{ratios['small_cnn']:.2f} of it."
    )
    return Section("Spread of the trace", text, verdict)


def _trained() -> dict[str, nn.Module]:
    """Fit a network without batch norm to the batch, and train one with batch norm."""
    images, labels = curvature.batch()
    fitted = curvature.network("wide_plain_cnn")
    optimizer = torch.optim.SGD(fitted.parameters(), lr=0.02, momentum=0.9)
    for _ in range(100):
        optimizer.zero_grad()
        cross_entropy(fitted(images), labels).backward()
        optimizer.step()
    with contextlib.redirect_stderr(io.StringIO()):
        _, normed = train_model(Run(Images(), "sgd", 0, 0.01, 5, weight_decay=5e-4))
    return {"wide_plain_cnn": fitted, "small_cnn": normed}
