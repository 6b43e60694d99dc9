"""Measure the spread of estimates of the Hessian's trace."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Literal

import scipy.stats
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.report.intervals import AsymmetricInterval
from benchmarks.report.table import markdown_table
from benchmarks.run import Run
from benchmarks.runs.training import train_model
from benchmarks.studies.overhead import curvature
from benchmarks.studies.overhead.section import Data, Section
from benchmarks.workloads.images import Images

__all__ = ["measure", "report", "spread_ratio"]

LIMIT = 0.5
PROBES = 18
_METHODS: tuple[Literal["hutchinson", "xtrace"], ...] = ("hutchinson", "xtrace")


def measure(seeds: int) -> Data:
    """Estimate the trace of two networks by two methods with many seeds."""
    estimates = {}
    for name, model in _trained().items():
        hessian = curvature.hessian(model.eval(), curvature.batch())
        estimates[name] = {method: [_trace(hessian, method, seed) for seed in range(seeds)] for method in _METHODS}
    return {"batch": curvature.BATCH, "products": PROBES, "estimates": estimates}


def _trace(hessian: rsam.curvature.RiemannianHessian, method: Literal["hutchinson", "xtrace"], seed: int) -> float:
    return float(f"{float(rsam.curvature.trace(hessian, PROBES, method=method, seed=seed)):.6g}")


def report(data: Data) -> Section:
    """Compare; a table and a verdict."""
    estimates = data["estimates"]
    rows = [
        (f"{name}, {method}", f"{mean(values):.1f}", f"{100 * _spread(values):.1f}")
        for name, of in estimates.items()
        for method, values in of.items()
    ]
    table = markdown_table(("network, method", "mean", "standard deviation, % of the mean"), rows)
    few, many = (spread_ratio(estimates[name]) for name in ("wide_plain_cnn", "small_cnn"))
    seeds = len(estimates["small_cnn"]["xtrace"])
    text = (
        "wide_plain_cnn (no batch norm) after 100 steps on the batch, small_cnn (batch norm) after 5 epochs; batch "
        f"{data['batch']}, {data['products']} products, {seeds} seeds. The intervals of the ratios above are by the F "
        f"distribution, as if estimates were normal.\n\n{table}"
    )
    verdict = (
        f"Where few eigenvalues dominate (wide_plain_cnn), XTrace's relative standard deviation is {few:.2f} times "
        f"Hutchinson's, {'within' if few.estimate <= LIMIT else 'ABOVE'} the target of half. Where many are alike "
        f"(small_cnn), it is {many:.2f} times Hutchinson's."
    )
    return Section("Spread of the trace", text, verdict)


def _spread(values: Sequence[float]) -> float:
    return stdev(values) / abs(mean(values))


def spread_ratio(estimates: Mapping[str, Sequence[float]]) -> AsymmetricInterval:
    """Divide XTrace's relative spread by Hutchinson's, with the 95 % interval of a ratio of normal deviations."""
    ratio = _spread(estimates["xtrace"]) / _spread(estimates["hutchinson"])
    freedom = [len(estimates[method]) - 1 for method in ("xtrace", "hutchinson")]
    low, high = (float(ratio / scipy.stats.f.ppf(level, *freedom) ** 0.5) for level in (0.975, 0.025))
    return AsymmetricInterval(ratio, low, high)


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
