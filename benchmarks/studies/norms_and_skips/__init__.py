"""What batch norm and skip connections do to curvature and to the generalisation gap."""

from benchmarks.studies.norms_and_skips.design import Design
from benchmarks.studies.norms_and_skips.study import NormsAndSkipsStudy

__all__ = ["NORMS_AND_SKIPS"]

NORMS_AND_SKIPS = NormsAndSkipsStudy(
    name="norms_and_skips",
    summary="do batch norm and skip connections lower curvature, and does the gap follow? 2 hours on 2 cores",
    design=Design(),
)
