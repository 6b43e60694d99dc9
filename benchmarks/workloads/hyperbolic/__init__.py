"""Embed hierarchies in hyperbolic space, and classify there."""

from benchmarks.workloads.hyperbolic.classification import FewLabels
from benchmarks.workloads.hyperbolic.embedding import Embedded

__all__ = ["Embedded", "FewLabels"]
