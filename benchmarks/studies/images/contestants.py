"""Who competes on images: each method, its kernels plain, on spheres or on Stiefel manifolds, with twenty settings."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.methods import METHODS
from benchmarks.run import Knob
from benchmarks.studies.comparison.cases import Contestant, Grid
from benchmarks.workloads.images import Kernels

__all__ = ["CHECK", "CHECKED", "CONTESTANTS", "at_equal_gradients"]

#: SAM of a peer takes the settings that are chosen for ours, to which it should be equal.
CHECK, CHECKED = "peer_sam", "sam"

_RATES = (0.003, 0.01, 0.03, 0.1)
# methods without a knob of their own are tried with several weight decays, so that every method has as many settings
_DECAY = Grid(Knob.WEIGHT_DECAY, (0.001, 0.003, 0.01, 0.03, 0.1), (1e-4, 5e-4, 5e-3, 5e-2))
_DECOUPLED = Grid(Knob.WEIGHT_DECAY, (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (0.01, 0.1, 0.5, 2.0))
_RHO = Grid(Knob.RHO, _RATES, (0.05, 0.1, 0.2, 0.4, 0.8))  # at the last training collapses for many
_PLAIN = {
    "sgd": _DECAY,
    "adamw": replace(_DECOUPLED, rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2)),
    CHECKED: _RHO,
    "asam": Grid(Knob.RHO, _RATES, (0.25, 0.5, 1.0, 2.0, 4.0)),  # in units of the weights
    CHECK: _RHO,
    "gradient_norm": replace(_RHO, knob=Knob.PENALTY),  # whose first order SAM is
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
    """Let a contestant train for as many epochs as take SAM's gradient evaluations."""
    passes = METHODS[CHECKED].gradients / METHODS[contestant.method].gradients
    return replace(contestant, name=f"{contestant.name}, equal gradients", passes=passes)
