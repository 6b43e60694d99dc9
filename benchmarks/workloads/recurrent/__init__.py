"""Recurrent networks whose recurrent matrix is orthogonal."""

from benchmarks.workloads.recurrent.sequences import Sequences

__all__ = ["Sequences"]
