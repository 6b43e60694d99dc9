"""Run the study of costs: steps, curvature, penalties, margins and landscapes, beside other libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.machine import one_thread
from benchmarks.report.forest import draw_forest
from benchmarks.report.opening import ANSWER
from benchmarks.runs.parallel import Workers
from benchmarks.runs.results import Results
from benchmarks.studies.overhead import (
    landscapes,
    margins,
    memory,
    optimizers,
    penalties,
    products,
    savings,
    spread,
    steps,
    traces,
)
from benchmarks.studies.overhead.figures import factor_groups
from benchmarks.studies.overhead.page import page
from benchmarks.studies.overhead.section import Data, Measured, Measurement, Section
from benchmarks.studies.study import ROWS, NothingToReport

__all__ = ["OVERHEAD", "OverheadStudy"]


@dataclass(frozen=True)
class _Part:
    """How a section is measured, and what makes it of what was measured."""

    measure: Callable[[], Data]
    report: Callable[[Data], Section]


@dataclass(frozen=True)
class OverheadStudy:
    """Study that times on one thread, and keeps one row per section.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    repeats : int
        Number of times that a step is timed; slower operations are timed less often.
    warm_up : int
        Number of untimed repeats before.
    """

    name: str
    summary: str
    repeats: int = 300
    warm_up: int = 20

    def run(self, directory: Path, workers: Workers) -> None:
        """Measure the sections that have no row, in this process, whatever the workers."""
        results, parts = self._results(directory), self._parts()
        with results.alone(), one_thread():
            there = results.find(parts)
            for section, part in parts.items():
                if section not in there:
                    results.append(Measured(section, _machine(), part.measure()))

    def rows(self, directory: Path) -> dict[str, Measured]:
        """Return the rows of all sections by name.

        Raises
        ------
        NothingToReport
            If one is missing.
        """
        results, parts = self._results(directory), self._parts()
        rows = results.find(parts)
        if len(rows) < len(parts):
            raise NothingToReport(f"{results.path} has {len(rows)} of {len(parts)} sections")
        return {section.section: rows[section] for section in parts}

    def report(self, directory: Path) -> str:
        """Report if all sections are there, and draw the picture."""
        rows = self.rows(directory)
        draw_forest(factor_groups(rows["optimizers"].data), directory / ANSWER, log=True)
        made = {part.report(rows[of.section].data): rows[of.section].machine for of, part in self._parts().items()}
        return page(made)

    def _parts(self) -> dict[Measurement, _Part]:
        """Return the sections in the order of the page."""
        third, sixth, few = (max(2, self.repeats // part) for part in (3, 6, 30))
        five, two = min(self.warm_up, 5), min(self.warm_up, 2)
        parts = {
            "optimizers": _Part(partial(optimizers.measure, sixth, five), optimizers.report),
            "steps": _Part(partial(steps.measure, self.repeats, self.warm_up), steps.report),
            "savings": _Part(partial(savings.measure, sixth, five), savings.report),
            "memory": _Part(memory.measure, memory.report),
            "products, pooled_cnn": _Part(partial(products.measure, "pooled_cnn", few, two), products.report),
            # whose convolutions torch's second backward is slow with
            "products, wide_cnn": _Part(partial(products.measure, "wide_cnn", few, two), products.report),
            "traces": _Part(partial(traces.measure, max(2, self.repeats // 50), 1), traces.report),
            "spread": _Part(partial(spread.measure, 2 * few), spread.report),
            "penalties": _Part(partial(penalties.measure, third, five), penalties.report),
            "margins": _Part(partial(margins.measure, few, 1), margins.report),
            "landscape": _Part(partial(landscapes.measure, max(2, self.repeats // 50), 1), landscapes.report),
        }
        return {Measurement(name): part for name, part in parts.items()}

    def quick(self) -> OverheadStudy:
        """Repeat less often."""
        return replace(self, repeats=30, warm_up=2)

    def _results(self, directory: Path) -> Results[Measured]:
        return Results(directory / ROWS, Measured)


def _machine() -> str:
    gpu = f"a {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "no GPU"
    return f"One thread of a CPU, torch {torch.__version__}; {gpu} was at hand."


OVERHEAD = OverheadStudy(
    name="overhead", summary="what steps, curvature, penalties and margins cost, beside other libraries; ten minutes"
)
