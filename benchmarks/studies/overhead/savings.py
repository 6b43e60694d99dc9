"""Time steps of RSAM that ascend from a part of the batch, or in every second step only."""

from __future__ import annotations

from collections.abc import Callable

from torch.nn.functional import cross_entropy

import rsam
from benchmarks.report.intervals import median_interval
from benchmarks.report.table import markdown_table
from benchmarks.runs.steps import gradient_closure
from benchmarks.studies.overhead.networks import network
from benchmarks.studies.overhead.section import Data, Section
from benchmarks.studies.overhead.timing import Times, interleaved, median_ratio, milliseconds, repeats_of, rounded

__all__ = ["LIMITS", "PART", "measure", "report"]

#: Why what is asked is not reached, for the page.
_WHY = """\
Why the target is missed: in every second step, the operations of the ascent (see Steps) come on top of the bare
gradients."""

#: Allowed cost of a step of RSAM in steps of RiemannianSGD, by batch size.
LIMITS = {64: 1.3, 256: 1.2}
#: Part that ascends in every second step from a quarter of the batch.
PART = "RSAM, quarter, every 2"
_FRACTION = 0.25
_EVERY = 2
# a learning rate so small that all steps start from nearly the same weights
_RATE = 1e-5


def _steps(batch: int) -> dict[str, Callable[[], object]]:
    """Make functions that take two steps on a batch, each with a network of its own."""
    model, base, images_labels = network("riemannian_sgd", _RATE, batch)
    base_closure = gradient_closure(model, base, *images_labels)
    whole_model, whole, _ = network("rsam", _RATE, batch)
    whole_closure = gradient_closure(whole_model, whole, *images_labels)
    part_model, part, _ = network("rsam", _RATE, batch)
    part.every = _EVERY
    closures = rsam.optim.partial_closures(
        part, lambda x, y: cross_entropy(part_model(x), y), images_labels, fraction=_FRACTION
    )

    def twice(step: Callable[[], object]) -> Callable[[], object]:
        return lambda: (step(), step())

    return {
        "gradient": base_closure,
        "gradient of the part": closures[1],
        "RiemannianSGD": twice(lambda: base.step(base_closure)),
        "RSAM": twice(lambda: whole.step(whole_closure)),
        PART: twice(lambda: part.step(*closures)),
    }


def measure(repeats: int, warm_up: int) -> Data:
    """Time two steps of each method with batches of each size."""
    return {
        "times": {
            str(batch): rounded(interleaved(_steps(batch), repeats, warm_up, f"savings, batch {batch}"))
            for batch in LIMITS
        }
    }


def _row(batch: int, times: Times) -> tuple[list[str], float]:
    saving = median_ratio(times, PART, "RiemannianSGD")
    pairs = zip(times["gradient of the part"], times["gradient"], strict=True)
    bare = median_interval([1 + part / whole / _EVERY for part, whole in pairs])
    cells = [
        str(batch),
        *(f"{milliseconds(times, name) / 2:.2f}" for name in ("RiemannianSGD", "RSAM", PART)),
        f"{median_ratio(times, 'RSAM', 'RiemannianSGD'):.2f}",
        f"{saving:.3f}",
        f"{bare:.3f}",
        f"{LIMITS[batch]}",
    ]
    return cells, saving.estimate


def report(data: Data) -> Section:
    """Compare; a table and a verdict."""
    rows, short = [], []
    for batch, limit in LIMITS.items():
        cells, saving = _row(batch, data["times"][str(batch)])
        rows.append(cells)
        short += [] if saving <= limit else [str(batch)]
    header = (
        "batch", "RiemannianSGD, ms", "RSAM, ms", "quarter, every 2, ms", "RSAM", "quarter, every 2", "bare gradients",
        "target",
    )  # fmt: skip
    kept = f"misses its cost target at batch {' and '.join(short)}" if short else "meets its cost targets"
    verdict = f"RSAM that ascends from a quarter of the batch in every second step {kept}."
    repeats = repeats_of(next(iter(data["times"].values())))
    text = (
        "*quarter, every 2*: RSAM that ascends along the gradient of a quarter of the batch, in every second step. "
        f"small_cnn with kernels on spheres; medians of {repeats} interleaved repeats of two steps. The last four "
        "columns are relative to a step of RiemannianSGD; *bare gradients*: the unavoidable gradients alone, relative "
        "to one gradient of the whole batch.\n\n"
        f"{markdown_table(header, rows)}\n\n{_WHY}"
    )
    return Section("Savings", text, verdict)
