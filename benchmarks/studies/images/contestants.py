"""List the contestants on images: each method, with kernels plain, on spheres or on Stiefel manifolds."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.methods import METHODS
from benchmarks.run import Knob
from benchmarks.studies.comparison.cases import Contestant, Grid
from benchmarks.workloads.images import Kernels

__all__ = ["CHECK", "CHECKED", "CONTESTANTS", "at_equal_gradients"]

#: Another library's SAM takes the settings that are chosen for ours, and should give equal results.
CHECK, CHECKED = "peer_sam", "sam"

_RATES = (0.003, 0.01, 0.03, 0.1)
# methods without a knob of their own are tuned over weight decay, so that every method has twenty settings
_DECAY = Grid(Knob.WEIGHT_DECAY, (0.001, 0.003, 0.01, 0.03, 0.1), (1e-4, 5e-4, 5e-3, 5e-2))
_DECOUPLED = Grid(Knob.WEIGHT_DECAY, (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (0.01, 0.1, 0.5, 2.0))
_RHO = Grid(Knob.RHO, _RATES, (0.05, 0.1, 0.2, 0.4, 0.8))  # at the last value training collapses for many methods
_PLAIN = {
    "sgd": _DECAY,
    "adamw": replace(_DECOUPLED, rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2)),
    CHECKED: _RHO,
    "asam": Grid(Knob.RHO, _RATES, (0.25, 0.5, 1.0, 2.0, 4.0)),  # a radius relative to the size of the weights
    CHECK: _RHO,
    "gradient_norm": replace(_RHO, knob=Knob.PENALTY),  # to first order SAM is this penalty
    "hessian_trace": Grid(Knob.PENALTY, _RATES, (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)),
}
_CONSTRAINED = {
    "riemannian_sgd": _DECAY,
    "riemannian_adam": _DECOUPLED,
    "rsam": _RHO,
    "rsam_pullback": _RHO,
    "rsam_project": _RHO,
    "ambient_sam": _RHO,
}


def _contestants(grids: dict[str, Grid], kernels: Kernels, suffix: str = "", place: str = "") -> list[Contestant]:
    return [
        Contestant(
            f"{method}{suffix}",
            f"{METHODS[method].label}{place}",
            method,
            grid,
            kernels,
            settings_of=CHECKED if method == CHECK else "",
        )
        for method, grid in grids.items()
    ]


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        *_contestants(_PLAIN, "plain"),
        *_contestants(_CONSTRAINED, "spheres", place=", spheres"),
        *_contestants(_CONSTRAINED, "stiefel", "_stiefel", ", Stiefel"),
    )
}


def at_equal_gradients(contestant: Contestant) -> Contestant:
    """Let a contestant train for so many epochs that it uses as many gradient evaluations as SAM."""
    passes = METHODS[CHECKED].gradients / METHODS[contestant.method].gradients
    return replace(contestant, name=f"{contestant.name}, equal gradients", passes=passes)
