"""What each method's tuning may choose from: twenty settings of learning rate and knob."""

from __future__ import annotations

from benchmarks.methods import METHODS, Method

__all__ = ["SETTINGS", "grid"]

SETTINGS = 20

_SGD = (0.001, 0.003, 0.01, 0.03, 0.1)
_SAM = (0.003, 0.01, 0.03, 0.1)
_DECAY = (1e-4, 5e-4, 5e-3, 5e-2)
_DECOUPLED = (0.01, 0.1, 0.5, 2.0)
_RHO = (0.05, 0.1, 0.2, 0.4, 0.8)  # at the last training collapses for many


def grid(method: Method) -> list[tuple[float, float]]:
    """Learning rates and values of the knob that a method is tried with.

    Methods without a knob of their own are tried with several weight decays, so that every method has as many settings.
    """
    rates, knobs = _axes(method)
    return [(lr, knob) for lr in rates for knob in knobs]


def _axes(method: Method) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if method.name == "adamw":
        return (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), _DECOUPLED
    if method.name.startswith("riemannian_adam"):
        return (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), _DECOUPLED
    if method.knob == "weight_decay":
        return _SGD, _DECAY
    if method.name == "asam":
        return _SAM, (0.25, 0.5, 1.0, 2.0, 4.0)  # in units of the weights
    if method.name == "hessian_trace":
        return _SAM, (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    assert method.name in METHODS  # SAM-like, and the gradient-norm penalty, whose first order SAM is
    return _SAM, _RHO
