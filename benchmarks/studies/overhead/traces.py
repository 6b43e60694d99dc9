"""Time estimates of the Hessian's trace beside those of other libraries."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

from torch import nn

import rsam
from benchmarks.report.table import markdown_table
from benchmarks.studies.overhead import curvature
from benchmarks.studies.overhead.curvature import hessian, network, pyhessian_operator
from benchmarks.studies.overhead.section import Section
from benchmarks.studies.overhead.timing import interleaved, median_ratio, milliseconds

__all__ = ["report"]

LIMIT = 2.5
PROBES = 20


def report(repeats: int) -> Section:
    """Time and compare; a table and a verdict."""
    import curvlinops

    batch, model = curvature.batch(), network("pooled_cnn").eval()
    loss, params = nn.CrossEntropyLoss(), list(model.parameters())

    def theirs() -> object:
        operator = curvlinops.HessianLinearOperator(model, loss, params, [batch], check_deterministic=False)
        return curvlinops.hutchinson_trace(operator, PROBES)

    parts: dict[str, Callable[[], object]] = {
        "rsam": lambda: rsam.curvature.trace(hessian(model, batch), PROBES),
        "curvlinops": theirs,
    }
    if find_spec("pyhessian"):
        # with a positive tol it stops as soon as two means are close by chance, or the mean is negative
        parts["PyHessian"] = lambda: pyhessian_operator(model, data=batch).trace(maxIter=PROBES, tol=-math.inf)
    times = interleaved(parts, repeats, 1, "traces")
    table = markdown_table(
        ("trace", "ms", "times rsam's"),
        [(name, f"{milliseconds(times, name):.0f}", f"{median_ratio(times, name, 'rsam'):.2f}") for name in parts],
    )
    faster = median_ratio(times, "curvlinops", "rsam")
    verdict = f"Ours is {'' if faster >= LIMIT else 'NOT '}at least {LIMIT} times as fast as curvlinops'"
    if "PyHessian" in parts:
        verdict += f", and {'not' if median_ratio(times, 'PyHessian', 'rsam') >= 1 else 'IS'} slower than PyHessian's"
    text = (
        f"pooled_cnn, batch {curvature.BATCH}, {PROBES} Hutchinson probes, the operator made anew; medians of "
        f"{repeats} interleaved repeats.\n\n{table}"
    )
    return Section("Traces", text, f"{verdict}.")
