"""Networks on symmetric positive definite matrices."""

from benchmarks.workloads.spd.network import emg

__all__ = ["emg"]
