"""Train networks on symmetric positive definite matrices."""

from benchmarks.workloads.spd.network import HandSigns

__all__ = ["HandSigns"]
