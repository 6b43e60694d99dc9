"""Collect all methods of training by name."""

from benchmarks.methods.layerwise import LAYERWISE
from benchmarks.methods.looksam import PEER_LOOKSAM
from benchmarks.methods.method import Method
from benchmarks.methods.penalties import GRADIENT_NORM, HESSIAN_TRACE
from benchmarks.methods.plain import ADAMW, ASAM, FRIENDLY_SAM, MOMENTUM_SAM, PEER_SAM, SAM, SGD
from benchmarks.methods.riemannian import RIEMANNIAN

__all__ = ["METHODS", "Method"]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        SGD,
        ADAMW,
        SAM,
        ASAM,
        MOMENTUM_SAM,
        FRIENDLY_SAM,
        LAYERWISE,
        PEER_SAM,
        PEER_LOOKSAM,
        GRADIENT_NORM,
        HESSIAN_TRACE,
        *RIEMANNIAN,
    )
}
