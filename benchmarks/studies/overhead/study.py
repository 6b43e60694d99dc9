"""Run the study of costs: steps, curvature, penalties and margins, beside other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.machine import one_thread
from benchmarks.report.forest import draw_forest
from benchmarks.report.opening import ANSWER, opening
from benchmarks.runs.parallel import Workers
from benchmarks.studies.overhead import (
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
from benchmarks.studies.overhead.factors import factor_groups
from benchmarks.studies.overhead.section import Section
from benchmarks.studies.study import NothingToReport

__all__ = ["OVERHEAD", "OverheadStudy"]

_TABLE = "README.md"


def page(machine: str, sections: Sequence[Section]) -> str:
    """Say all in Markdown: the verdicts first, then the tables.

    Parameters
    ----------
    machine : str
        A sentence on what was measured on.
    sections : sequence of Section
        In order.

    Returns
    -------
    str
        The report, with a newline at its end.
    """
    first = opening(
        "What steps, curvature, penalties and margins cost",
        "Are steps as fast as is asked, beside geoopt and torch, and what do curvature, penalties and margins cost?",
        "How many times as fast as a peer's the steps of each optimizer are, and how many are asked",
        [f"**{section.title}:** {section.verdict}" for section in sections if section.verdict],
    )
    return "\n\n".join([*first, machine, *map(str, sections)]) + "\n"


@dataclass(frozen=True)
class OverheadStudy:
    """Study that times on one thread; each run measures anew.

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
        """Measure in this process, whatever the workers, and write the tables."""
        few = max(2, self.repeats // 30)
        with one_thread():
            sections = [
                optimizers.report(max(2, self.repeats // 6), min(self.warm_up, 5)),
                steps.report(self.repeats, self.warm_up),
                savings.report(max(2, self.repeats // 6), min(self.warm_up, 5)),
                memory.report(),
                products.report("pooled_cnn", few, min(self.warm_up, 2)),
                # whose convolutions torch's second backward is slow with
                products.report("wide_cnn", few, min(self.warm_up, 2)),
                traces.report(max(2, few // 3)),
                spread.report(2 * few),
                penalties.report(max(2, self.repeats // 3), min(self.warm_up, 5)),
                margins.report(few, 1),
            ]
        gpu = f"a {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "no GPU"
        machine = f"One thread of a CPU, torch {torch.__version__}; {gpu} was at hand."
        (directory / _TABLE).write_text(page(machine, sections), encoding="utf-8")

    def report(self, directory: Path) -> str:
        """Return the tables of the last measurement, and draw its picture."""
        path = directory / _TABLE
        if not path.exists():
            raise NothingToReport(f"{path} is not there")
        text = path.read_text(encoding="utf-8")
        draw_forest(factor_groups(text), directory / ANSWER, log=True)
        return text

    def quick(self) -> OverheadStudy:
        """Repeat less often."""
        return replace(self, repeats=30, warm_up=2)


OVERHEAD = OverheadStudy(
    name="overhead", summary="what steps, curvature, penalties and margins cost, beside other libraries; six minutes"
)
