"""Hierarchies embedded in hyperbolic space, and classification there."""

from benchmarks.workloads.hyperbolic.classification import few_labels
from benchmarks.workloads.hyperbolic.embedding import animals, mammals, nouns

__all__ = ["animals", "few_labels", "mammals", "nouns"]
