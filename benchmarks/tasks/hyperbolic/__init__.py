"""Hierarchies embedded in hyperbolic space, and classification there."""

from benchmarks.tasks.hyperbolic.classification import few_labels
from benchmarks.tasks.hyperbolic.embedding import animals, mammals, nouns

__all__ = ["animals", "few_labels", "mammals", "nouns"]
