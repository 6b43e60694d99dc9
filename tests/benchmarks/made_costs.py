"""Make rows of the study of costs without measuring: the ratios are known, and scatter alike around one."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.studies.overhead import landscapes
from benchmarks.studies.overhead.margins import FOUR_LAYERS, PASSES
from benchmarks.studies.overhead.optimizers import CASES, KINDS
from benchmarks.studies.overhead.savings import LIMITS, PART
from benchmarks.studies.overhead.section import Data, Measured, Measurement
from benchmarks.studies.overhead.timing import Times

REPEATS = 50
#: Factors of a ratio over the repeats, in no order: 0.755 to 1.245 in steps of 0.01, with median 1.
SCATTER = [1 + (7 * i % REPEATS - 24.5) / 100 for i in range(REPEATS)]
#: Of the order statistics of 50 values, those between which the median lies with 95 %: the 18th and the 33rd.
LOW, HIGH = 0.925, 1.075
MACHINE = "One thread of a made machine."


def made_times(whole: str, ratios: Mapping[str, float]) -> Times:
    """Make times of parts as multiples of a whole that takes a second in every repeat."""
    return {whole: [1.0] * REPEATS, **{part: [ratio * s for s in SCATTER] for part, ratio in ratios.items()}}


def made_case(peer: str, factor: float) -> Data:
    ours = {f"rsam {kind}": [1.0] * REPEATS for kind in KINDS}
    peers = {f"{peer} {kind}": [factor * s for s in SCATTER] for kind in KINDS}
    return {
        "operations": dict.fromkeys(KINDS, 7),
        "stacked": True,
        "times": {"handling": [0.5] * REPEATS, **ours, **peers},
    }


def made_data(factor: float = 2.0) -> dict[str, Data]:
    """Make what is measured of each section; ``factor`` is by how much each case is faster than its peer."""
    products = {"rsam, one batch": 2.0, "curvlinops, one batch": 4.0}
    steps = {"gradient": [1.0] * REPEATS, "base step": [0.5] * REPEATS, "step": [3.0 * s for s in SCATTER]}
    savings = {"RSAM": 2.0, PART: 1.25, "gradient of the part": 0.25}
    estimates = {"hutchinson": [90.0, 110.0, 100.0], "xtrace": [99.0, 101.0, 100.0]}
    penalties = ["gradient norm, difference", "Hessian trace, difference"]
    return {
        "optimizers": {
            "geoopt": "0.5.1",
            "torch": "2.0",
            "cases": {case.label: made_case(case.peer, factor) for case in CASES},
        },
        "steps": {"batch": 64, "times": {"RSAM, spheres": steps, "RSAM, plain weights": steps}},
        "savings": {
            "times": {
                str(batch): {**made_times("RiemannianSGD", savings), "gradient": [1.0] * REPEATS} for batch in LIMITS
            }
        },
        "memory": {"count": 2, "size": 10, "weights": 2**20, "peaks": {"RSAM, spheres": 3 * 2**20}},
        **{
            f"products, {network}": {
                "network": network,
                "parameters": 1000,
                "batch": 128,
                "times": made_times("gradient", products),
            }
            for network in ("pooled_cnn", "wide_cnn")
        },
        "traces": {"batch": 128, "probes": 20, "times": made_times("rsam", {"curvlinops": 3.0, "PyHessian": 1.5})},
        "spread": {"batch": 128, "products": 18, "estimates": {"wide_plain_cnn": estimates, "small_cnn": estimates}},
        "penalties": {"batch": 64, "times": made_times("plain", dict.fromkeys(penalties, 2.5))},
        "margins": {"images": 500, "batch": 250, "times": made_times(PASSES, {FOUR_LAYERS: 1.2})},
        "landscape": {
            "points": 3,
            "examples": 256,
            "times": made_times(landscapes.PASSES, {landscapes.PLANE: 1.4}),
        },
    }


def made_rows(factor: float = 2.0) -> dict[str, Measured]:
    return {name: Measured(Measurement(name), MACHINE, data) for name, data in made_data(factor).items()}


def shown(ratio: float, decimals: int = 2) -> str:
    """Print a ratio as the page does, with its interval."""
    return f"{ratio:.{decimals}f} ({LOW * ratio:.{decimals}f}–{HIGH * ratio:.{decimals}f})"
