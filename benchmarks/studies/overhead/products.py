"""Time Hessian-vector products in gradient evaluations, beside those of other libraries."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.report.table import markdown_table
from benchmarks.studies.overhead import curvature
from benchmarks.studies.overhead.curvature import hessian, pyhessian_operator
from benchmarks.studies.overhead.section import Data, Section
from benchmarks.studies.overhead.timing import interleaved, milliseconds, ratios_to, repeats_of, rounded

__all__ = ["measure", "report"]

#: Allowed gradient evaluations of a product with one batch, by network.
LIMITS = {"pooled_cnn": 2.3}
_ONE = "rsam, one batch"
_TEN = "rsam, loader of two, each of ten columns"


def measure(network: str, repeats: int, warm_up: int) -> Data:
    """Time products and gradients."""
    (images, labels), model = curvature.batch(), curvature.network(network).eval()
    params = list(model.parameters())
    half = len(images) // 2
    halves = list(zip(images.split(half), labels.split(half), strict=True))
    kept, fresh = hessian(model, (images, labels)), hessian(model, (images, labels))
    loader, held = hessian(model, halves), hessian(model, halves)
    v = torch.randn(kept.shape[0])
    columns = torch.randn(kept.shape[0], 10)
    parts: dict[str, Callable[[], object]] = {
        "gradient": lambda: torch.autograd.grad(cross_entropy(model(images), labels), params),
        _ONE: lambda: kept @ v,
        "rsam, one batch, graph built anew": lambda: fresh @ v,
        "rsam, loader of two, graphs kept": lambda: held @ v,
        "rsam, loader of two": lambda: loader @ v,
        _TEN: lambda: loader @ columns,
    }
    parts |= _peers(model, (images, labels), halves, v)
    with kept.keeping_graphs(), held.keeping_graphs():  # as estimators do within one call
        times = interleaved(parts, repeats, warm_up, "products")
    times[_TEN] = [seconds / 10 for seconds in times[_TEN]]
    size = sum(p.numel() for p in params)
    return {"network": network, "parameters": size, "batch": len(images), "times": rounded(times)}


def report(data: Data) -> Section:
    """Compare; a table, and a verdict where a limit is set."""
    network, times = data["network"], data["times"]
    ratios = ratios_to(times, "gradient")
    table = markdown_table(
        ("Hessian-vector product", "ms", "gradient evaluations"),
        [(name, f"{milliseconds(times, name):.1f}", f"{ratio:.2f}") for name, ratio in ratios.items()],
    )
    text = (
        f"Medians of {repeats_of(times)} interleaved repeats, "
        f"{data['parameters']:,} parameters, evaluation mode, batch {data['batch']}; a gradient takes "
        f"{milliseconds(times, 'gradient'):.1f} ms. With one batch, the graph is kept between products, as within one "
        f"call of an estimator, unless the row says otherwise.\n\n{table}"
    )
    return Section(f"Hessian-vector products, {network}", text, _verdict(network, ratios[_ONE].estimate))


def _verdict(network: str, ratio: float) -> str:
    if network not in LIMITS:
        return ""
    limit = LIMITS[network]
    return (
        f"rsam's product with one batch takes {'' if ratio <= limit else 'NOT '}at most {limit} gradient evaluations, "
        "the target."
    )


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
        one, two = pyhessian_operator(model, data=batch), pyhessian_operator(model, dataloader=halves)
        products["PyHessian, one batch"] = lambda: hessian_vector_product(one.gradsH, one.params, vectors)
        two.params = params  # PyHessian sets it for a single batch only
        products["PyHessian, loader of two"] = lambda: two.dataloader_hv_product(vectors)
    return products
