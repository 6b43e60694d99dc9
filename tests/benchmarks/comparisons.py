"""Make up comparisons from random numbers, and read tables back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats

from benchmarks.studies.comparison.cases import Case
from benchmarks.studies.comparison.contest import Entry
from tests.benchmarks.entries import made_entry

ASKED = ("sgd", "sam", "peer_sam", "gradient_norm", "hessian_trace", "rsam", "rsam_stiefel")
MEASURES = ("gradient_norm", "trace", "top_eigenvalue", "sharpness", "distance")
SEEDS = 4


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def made_up(case: Case, seeds: int = SEEDS, seed: int = 0) -> list[Entry]:
    """Make up entries of all contestants of a case; numbers are independent, except accuracies of equal seeds."""
    rng = generator(seed)
    base = rng.uniform(0.65, 0.75, seeds)
    return [
        made_entry(
            case,
            contestant,
            base + rng.uniform(0, 0.03) + rng.uniform(-0.004, 0.004, seeds),
            {name: rng.lognormal(size=seeds) for name in (*MEASURES, "trace_error")},
            rng.uniform(0.8, 1, seeds),
        )
        for contestant in case.contestants
    ]


def cells(text: str, start: str) -> dict[str, list[str]]:
    """Read the first Markdown table whose first header cell is this one; return its rows by their first cell."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    first = next(i for i, line in enumerate(lines) if line[0] == start)
    found = {}
    for line in lines[first:]:
        if len(line) != len(lines[first]):
            break
        found.setdefault(line[0], line)
    return found


def table_of(text: str) -> list[dict[str, str]]:
    """Read a Markdown table as one dict per row."""
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def percent(entry: Entry) -> np.ndarray:
    return np.array([100 * row.scores["accuracy"] for row in entry.rows])


def shown(values: Sequence[float], digits: int) -> str:
    """Format the mean and half of scipy's 95 % interval."""
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    half = (high - low) / 2
    return f"{np.mean(values):.{digits}f} ± {half:.{digits if half < 100 else 0}f}"
