"""Recurrent networks whose recurrent matrix is orthogonal."""

from benchmarks.workloads.recurrent.sequences import adding, copying, rows

__all__ = ["adding", "copying", "rows"]
