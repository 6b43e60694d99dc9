"""What things cost, beside other libraries."""

from benchmarks.studies.overhead.study import OVERHEAD, OverheadStudy

__all__ = ["OVERHEAD", "OverheadStudy"]
