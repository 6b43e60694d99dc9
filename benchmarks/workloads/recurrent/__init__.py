"""Train recurrent networks with an orthogonal recurrent matrix."""

from benchmarks.workloads.recurrent.sequences import Sequences

__all__ = ["Sequences"]
