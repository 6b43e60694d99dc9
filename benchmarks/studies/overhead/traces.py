"""Time estimates of the Hessian's trace beside those of other libraries."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

from torch import nn

import rsam
from benchmarks.studies.overhead import curvature
from benchmarks.studies.overhead.curvature import hessian, network, pyhessian_operator
from benchmarks.studies.overhead.section import Data, Section
from benchmarks.studies.overhead.timing import compared, interleaved, ratios_to, repeats_of, rounded

__all__ = ["measure", "report"]

LIMIT = 2.5
PROBES = 20


def measure(repeats: int, warm_up: int) -> Data:
    """Time estimates of each library."""
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
    times = rounded(interleaved(parts, repeats, warm_up, "traces"))
    return {"batch": curvature.BATCH, "probes": PROBES, "times": times}


def report(data: Data) -> Section:
    """Compare; a table and a verdict."""
    times = data["times"]
    ratios = ratios_to(times, "rsam")
    table = compared(times, "rsam", ("trace", "ms", "relative to rsam"))
    fast = ratios["curvlinops"].estimate >= LIMIT
    verdict = f"rsam's estimate is {'' if fast else 'NOT '}at least {LIMIT} times as fast as curvlinops'"
    if "PyHessian" in ratios:
        verdict += f", and {'not' if ratios['PyHessian'].estimate >= 1 else 'IS'} slower than PyHessian's"
    text = (
        f"pooled_cnn, batch {data['batch']}, {data['probes']} Hutchinson probes, the operator built each time; medians "
        f"of {repeats_of(times)} interleaved repeats.\n\n{table}"
    )
    return Section("Traces", text, f"{verdict}.")
