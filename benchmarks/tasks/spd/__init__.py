"""Networks on symmetric positive definite matrices."""

from benchmarks.tasks.spd.network import emg

__all__ = ["emg"]
