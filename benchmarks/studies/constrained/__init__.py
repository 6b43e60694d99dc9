"""The ascent against other remedies where kernels are constrained and cannot decay."""

from benchmarks.studies.constrained.study import ConstrainedStudy

__all__ = ["CONSTRAINED"]

CONSTRAINED = ConstrainedStudy(
    name="constrained",
    summary="does the ascent do more for constrained kernels than other remedies? 2 hours on 2 cores",
)
