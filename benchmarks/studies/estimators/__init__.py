"""Measure which estimators of curvature to trust."""

from benchmarks.studies.estimators.study import ESTIMATORS

__all__ = ["ESTIMATORS"]
