"""Methods of training by name."""

from benchmarks.methods.method import Method
from benchmarks.methods.plain import SAM, SGD
from benchmarks.methods.spheres import RIEMANNIAN_SGD, RSAM

__all__ = ["METHODS", "Method"]

METHODS: dict[str, Method] = {method.name: method for method in (SGD, SAM, RIEMANNIAN_SGD, RSAM)}
