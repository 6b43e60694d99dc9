"""List the contestants, and the ranges that they are tuned over."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.methods import METHODS
from benchmarks.run import Knob
from benchmarks.studies.comparison.cases import Contestant
from benchmarks.studies.comparison.sampling import Range, Sample

__all__ = ["CONTESTANTS", "PENALTY", "VARIANTS"]

_LR = Range(Knob.LR, 0.003, 0.5)
_DECAY = Range(Knob.WEIGHT_DECAY, 5e-4, 0.1, natural=True)
# the unit of a step of a kernel is an angle there, and not a length
_FACTOR = Range(Knob.KERNEL_RATE, 1.0, 10.0)
_RHO = Range(Knob.RHO, 0.0125, 0.6, natural=True)
_PLACES = {"plain": "", "spheres": ", spheres", "stiefel": ", Stiefel"}


def _contestant(name: str, method: str, kernels: str, *own: Range, base: str = "") -> Contestant:
    factor = () if kernels == "plain" else (_FACTOR,)
    label = METHODS[method].label + _PLACES[kernels]
    return Contestant(name, label, method, Sample.of(_LR, _DECAY, *factor, *own), kernels, base=base)


_ALL = (
    _contestant("sgd", "sgd", "plain"),
    # its steps do not scale with the gradient, and its decay is decoupled and multiplied by a smaller rate
    replace(
        _contestant("adamw", "adamw", "plain"),
        grid=Sample.of(Range(Knob.LR, 2e-4, 0.03), Range(Knob.WEIGHT_DECAY, 0.01, 10.0, natural=True)),
    ),
    _contestant("sam", "sam", "plain", _RHO, base="sgd"),
    # a radius relative to the size of the weights
    _contestant("asam", "asam", "plain", replace(_RHO, low=0.05, high=4.0), base="sgd"),
    _contestant("hessian_trace", "hessian_trace", "plain", Range(Knob.PENALTY, 1e-5, 5e-3, natural=True), base="sgd"),
    _contestant("riemannian_sgd", "riemannian_sgd", "spheres"),
    _contestant("rsam", "rsam", "spheres", _RHO, base="riemannian_sgd"),
    # an angle of each kernel, and not the radius of a ball over all weights
    _contestant("rsam_angle", "rsam_angle", "spheres", replace(_RHO, high=0.3), base="riemannian_sgd"),
    _contestant("riemannian_sgd_stiefel", "riemannian_sgd", "stiefel"),
    _contestant("rsam_stiefel", "rsam", "stiefel", _RHO, base="riemannian_sgd_stiefel"),
)
#: Contestants by name, in the order of tables.
CONTESTANTS = {contestant.name: contestant for contestant in _ALL}
#: Those that C6 is judged by, and the one that C5 is.
VARIANTS, PENALTY = ("rsam", "rsam_stiefel", "rsam_angle"), "hessian_trace"
