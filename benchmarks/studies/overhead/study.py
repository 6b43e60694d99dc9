"""Costs of steps, of curvature and of penalties, beside those of other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.studies.overhead import curvature, penalties, steps

__all__ = ["OVERHEAD", "OverheadStudy"]


@dataclass(frozen=True)
class OverheadStudy:
    """Times on one thread; each call measures anew.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    repeats : int
        How often a step is timed; what takes longer, less often.
    warm_up : int
        How often before that, without looking.
    """

    name: str
    summary: str
    repeats: int = 300
    warm_up: int = 20

    def run(self, directory: Path, jobs: int) -> str:
        """Measure, by one process whatever ``jobs`` says, and write the tables."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        few = max(2, self.repeats // 30)
        try:
            sections = [
                steps.report(self.repeats, self.warm_up),
                curvature.report(few, min(self.warm_up, 2)),
                penalties.report(max(2, self.repeats // 3), min(self.warm_up, 5)),
            ]
        finally:
            torch.set_num_threads(threads)
        text = "One thread.\n\n" + "\n\n".join(sections)
        path = directory / "table.md"
        path.write_text(text + "\n", encoding="utf-8")
        return f"{text}\n\ntable:   {path}"


OVERHEAD = OverheadStudy(
    name="overhead", summary="what steps, curvature and penalties cost, beside other libraries; four minutes"
)
