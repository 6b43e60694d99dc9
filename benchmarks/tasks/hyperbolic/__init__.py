"""Hierarchies embedded in hyperbolic space, and classification there."""

from benchmarks.tasks.hyperbolic.classification import few_labels
from benchmarks.tasks.hyperbolic.embedding import mammals, nouns

__all__ = ["few_labels", "mammals", "nouns"]
