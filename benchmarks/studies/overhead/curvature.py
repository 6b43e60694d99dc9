"""Time Hessian-vector products and traces in gradient evaluations, and measure the spread of trace estimates."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.data import DATASETS
from benchmarks.report.table import markdown_table
from benchmarks.run import Run
from benchmarks.runs.training import train_model
from benchmarks.studies.overhead.section import Section
from benchmarks.studies.overhead.timing import interleaved, median_ratio, milliseconds
from benchmarks.workloads.images import Images
from benchmarks.workloads.networks import MODELS

__all__ = ["report"]

PRODUCT_LIMIT = 2.3
TRACE_LIMIT = 2.5
SPREAD_LIMIT = 0.5
_BATCH = 128
_PROBES = 20
_TEN = "rsam, loader of two, each of ten columns"
_SPREAD_PROBES = 18


def _batch() -> tuple[Tensor, Tensor]:
    data = DATASETS["fashion_mnist_mini"]()
    return data.train_images[:_BATCH], data.train_labels[:_BATCH]


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]((1, 28, 28), 10).eval()


def _hessian(model: nn.Module, data: Any, **options: Any) -> rsam.curvature.RiemannianHessian:
    return rsam.curvature.RiemannianHessian(model, nn.CrossEntropyLoss(), model.parameters(), data, **options)


def report(repeats: int, warm_up: int) -> list[Section]:
    """Time and compare; tables and verdicts."""
    strided, _ = _products("wide_cnn", repeats, warm_up)  # whose convolutions torch's second backward is slow with
    pooled, ratio = _products("pooled_cnn", repeats, warm_up)
    verdict = (
        f"Ours on pooled_cnn with one batch takes {'' if ratio <= PRODUCT_LIMIT else 'NOT '}at most {PRODUCT_LIMIT} "
        "gradient evaluations."
    )
    return [replace(pooled, verdict=verdict), strided, _traces(max(2, repeats // 3)), _spread(2 * repeats)]


def _products(network: str, repeats: int, warm_up: int) -> tuple[Section, float]:
    """Time products; the section, and gradient evaluations of ours with one batch."""
    (images, labels), model = _batch(), _network(network)
    params = list(model.parameters())
    halves = list(zip(images.split(_BATCH // 2), labels.split(_BATCH // 2), strict=True))
    kept, fresh = _hessian(model, (images, labels)), _hessian(model, (images, labels))
    loader, held = _hessian(model, halves), _hessian(model, halves)
    v = torch.randn(kept.shape[0])
    columns = torch.randn(kept.shape[0], 10)
    parts: dict[str, Callable[[], object]] = {
        "gradient": lambda: torch.autograd.grad(cross_entropy(model(images), labels), params),
        "rsam, one batch": lambda: kept @ v,
        "rsam, one batch, graph built anew": lambda: fresh @ v,
        "rsam, loader of two, graphs kept": lambda: held @ v,
        "rsam, loader of two": lambda: loader @ v,
        _TEN: lambda: loader @ columns,
    }
    parts |= _peers(model, (images, labels), halves, v)
    with kept.keeping_graphs(), held.keeping_graphs():  # as estimators do within one call
        times = interleaved(parts, repeats, warm_up, "products")
    times[_TEN] = [seconds / 10 for seconds in times[_TEN]]
    ratios = {name: median_ratio(times, name, "gradient") for name in parts if name != "gradient"}
    table = markdown_table(
        ("Hessian-vector product", "ms", "gradient evaluations"),
        [(name, f"{milliseconds(times, name):.1f}", f"{ratio:.2f}") for name, ratio in ratios.items()],
    )
    text = (
        f"Medians of {repeats} interleaved repeats, "
        f"{sum(p.numel() for p in params):,} parameters, evaluation mode, batch {_BATCH}, the graph of one "
        "batch kept from product to product, as within one call of an estimator, unless it says otherwise; a gradient "
        f"takes {milliseconds(times, 'gradient'):.1f} ms.\n\n{table}"
    )
    return Section(f"Hessian-vector products, {network}", text), ratios["rsam, one batch"]


def _peers(model: nn.Module, batch: Any, halves: Any, v: Tensor) -> dict[str, Callable[[], object]]:
    import curvlinops

    params = list(model.parameters())
    operator = curvlinops.HessianLinearOperator(
        model, nn.CrossEntropyLoss(), params, [batch], check_deterministic=False
    )
    products: dict[str, Callable[[], object]] = {"curvlinops, one batch": lambda: operator @ v}
    if find_spec("pyhessian"):
        from pyhessian.utils import hessian_vector_product

        vectors = [z.reshape(p.shape) for z, p in zip(v.split([p.numel() for p in params]), params, strict=True)]
        one, two = _pyhessian(model, data=batch), _pyhessian(model, dataloader=halves)
        products["PyHessian, one batch"] = lambda: hessian_vector_product(one.gradsH, one.params, vectors)
        two.params = params  # PyHessian sets it for a single batch only
        products["PyHessian, loader of two"] = lambda: two.dataloader_hv_product(vectors)
    return products


def _pyhessian(model: nn.Module, **data: Any) -> Any:
    import pyhessian

    return pyhessian.hessian(model, nn.CrossEntropyLoss(), cuda=False, **data)


def _traces(repeats: int) -> Section:
    import curvlinops

    batch, model = _batch(), _network("pooled_cnn")
    loss, params = nn.CrossEntropyLoss(), list(model.parameters())

    def theirs() -> object:
        operator = curvlinops.HessianLinearOperator(model, loss, params, [batch], check_deterministic=False)
        return curvlinops.hutchinson_trace(operator, _PROBES)

    parts: dict[str, Callable[[], object]] = {
        "rsam": lambda: rsam.curvature.trace(_hessian(model, batch), _PROBES),
        "curvlinops": theirs,
    }
    if find_spec("pyhessian"):
        # with a positive tol it stops as soon as two means are close by chance, or the mean is negative
        parts["PyHessian"] = lambda: _pyhessian(model, data=batch).trace(maxIter=_PROBES, tol=-math.inf)
    times = interleaved(parts, repeats, 1, "traces")
    table = markdown_table(
        ("trace", "ms", "times rsam's"),
        [(name, f"{milliseconds(times, name):.0f}", f"{median_ratio(times, name, 'rsam'):.2f}") for name in parts],
    )
    faster = median_ratio(times, "curvlinops", "rsam")
    verdict = f"Ours is {'' if faster >= TRACE_LIMIT else 'NOT '}at least {TRACE_LIMIT} times as fast as curvlinops'"
    if "PyHessian" in parts:
        verdict += f", and {'not' if median_ratio(times, 'PyHessian', 'rsam') >= 1 else 'IS'} slower than PyHessian's"
    text = (
        f"pooled_cnn, batch {_BATCH}, {_PROBES} Hutchinson probes, the operator made anew; medians of "
        f"{repeats} interleaved repeats.\n\n{table}"
    )
    return Section("Traces", text, f"{verdict}.")


def _spread(seeds: int) -> Section:
    batch = _batch()
    torch.manual_seed(0)
    fitted = MODELS["wide_plain_cnn"]((1, 28, 28), 10)
    optimizer = torch.optim.SGD(fitted.parameters(), lr=0.02, momentum=0.9)
    for _ in range(100):
        optimizer.zero_grad()
        cross_entropy(fitted(batch[0]), batch[1]).backward()
        optimizer.step()
    with contextlib.redirect_stderr(io.StringIO()):
        _, normed = train_model(Run(Images(), "sgd", 0, 0.01, 5, weight_decay=5e-4))
    rows, ratios = [], {}
    for name, model in (("wide_plain_cnn", fitted), ("small_cnn", normed)):
        hessian = _hessian(model.eval(), batch)
        spreads = {}
        for method in ("hutchinson", "xtrace"):
            values = [
                float(rsam.curvature.trace(hessian, _SPREAD_PROBES, method=method, seed=seed)) for seed in range(seeds)
            ]
            spreads[method] = stdev(values) / abs(mean(values))
            rows.append((f"{name}, {method}", f"{mean(values):.1f}", f"{100 * spreads[method]:.1f}"))
        ratios[name] = spreads["xtrace"] / spreads["hutchinson"]
    table = markdown_table(("network, method", "mean", "standard deviation, %"), rows)
    ratio = ratios["wide_plain_cnn"]
    text = (
        f"wide_plain_cnn (no batch norm) after 100 steps on the batch, small_cnn (batch "
        f"norm) after 5 epochs; batch {_BATCH}, {_SPREAD_PROBES} products, {seeds} seeds.\n\n{table}"
    )
    verdict = (
        f"XTrace's spread is {ratio:.2f} of Hutchinson's where few eigenvalues dominate, on wide_plain_cnn, "
        f"{'' if ratio <= SPREAD_LIMIT else 'NOT '}at most half. On small_cnn, with many alike, it is "
        f"{ratios['small_cnn']:.2f} of it."
    )
    return Section("Spread of the trace", text, verdict)
