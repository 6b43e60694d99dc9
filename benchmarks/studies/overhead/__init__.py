"""Measure the costs of steps, curvature and penalties, beside those of other libraries."""

from benchmarks.studies.overhead.study import OVERHEAD, OverheadStudy

__all__ = ["OVERHEAD", "OverheadStudy"]
