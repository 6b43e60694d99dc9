"""Methods for models whose parameters live on manifolds already."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import rsam
from benchmarks.tasks.trial import Trial

__all__ = ["FIXED", "METHODS", "Method", "ProjectedAscent"]


@dataclass(frozen=True)
class Method:
    """How a trial becomes an optimizer.

    Attributes
    ----------
    label : str
        For tables.
    build : callable
        Takes parameters and a trial; returns an optimizer whose ``step`` takes a closure.
    knob : str
        What :attr:`Trial.knob` is.
    rates, knobs : str
        What of a :class:`~benchmarks.studies.tasks.cases.Grid` it is tuned over.
    base : str
        The method without the ascent, to be compared with; empty if there is none.
    passes : int
        How many times the epochs of a case it trains for.
    settings_of : str
        The method whose learning rate it takes, with its own knob at :data:`FIXED`; empty to be tuned for itself.
    """

    label: str
    build: Callable[[Iterable[nn.Parameter], Trial], torch.optim.Optimizer]
    knob: str
    rates: str
    knobs: str
    base: str = ""
    passes: int = 1
    settings_of: str = ""

    @property
    def gradients(self) -> int:
        """Gradient evaluations of a step."""
        return 2 if self.base else 1


#: Momentum and beta 1 of the bases under an ascent.
FIXED = 0.9


class ProjectedAscent:
    """Ablation: the ascent of SAM in the ambient space, projected back to the manifold.

    ``w' = proj(w + rho g / |g|)`` with the Euclidean gradient of all parameters and its Euclidean norm (Foret et al.
    2021, eq. 2); the Euclidean gradient at ``w'`` is handed to the base optimizer at ``w`` as it is. What tells it
    from :class:`rsam.RSAM` is the geometry of the ascent and of the way back, nothing else.

    Parameters
    ----------
    base : torch.optim.Optimizer
        Takes the step.
    rho : float
        Radius, in the ambient space.
    """

    def __init__(self, base: torch.optim.Optimizer, rho: float) -> None:
        self.base = base
        self.rho = rho
        self.param_groups = base.param_groups

    def zero_grad(self) -> None:
        """Forget gradients."""
        self.base.zero_grad()

    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Take one step; the closure is called twice."""
        loss = closure()
        with torch.no_grad():
            held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
            starts = [p.detach().clone() for p in held]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([p.grad for p in held])))
            try:
                if norm > 0:  # else there is no way up
                    for p in held:
                        p.add_(p.grad, alpha=float(self.rho / norm))
                        if hasattr(p, "manifold"):
                            p.copy_(p.manifold.projx(p))
                with torch.enable_grad():
                    closure()
            finally:
                torch._foreach_copy_(held, starts)
        self.base.step()
        return loss


def _sgd(params: Iterable[nn.Parameter], trial: Trial, momentum: float) -> torch.optim.Optimizer:
    return rsam.optim.RiemannianSGD(params, lr=trial.lr, momentum=momentum)


def _adam(params: Iterable[nn.Parameter], trial: Trial, beta: float = FIXED) -> torch.optim.Optimizer:
    return rsam.optim.RiemannianAdam(params, lr=trial.lr, betas=(beta, 0.999))


def _rsam(params: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    return rsam.RSAM(params, rsam.optim.RiemannianSGD, rho=trial.knob, lr=trial.lr, momentum=trial.momentum)


def _rsam_adam(params: Iterable[nn.Parameter], trial: Trial) -> torch.optim.Optimizer:
    return rsam.RSAM(params, rsam.optim.RiemannianAdam, rho=trial.knob, lr=trial.lr)


def _projected(params: Iterable[nn.Parameter], trial: Trial) -> Any:
    return ProjectedAscent(_sgd(params, trial, trial.momentum), trial.knob)


def _projected_adam(params: Iterable[nn.Parameter], trial: Trial) -> Any:
    return ProjectedAscent(_adam(params, trial), trial.knob)


_SGD = Method("RiemannianSGD", lambda params, trial: _sgd(params, trial, trial.knob), "momentum", "sgd", "momentum")
_ADAM = Method("RiemannianAdam", lambda params, trial: _adam(params, trial, trial.knob), "beta 1", "adam", "beta")
#: The bases also at the gradient evaluations of an ascent, trained twice as long and tuned for that; and at settings
#: that were chosen for RSAM, so that nothing differs but the ascent.
METHODS = {
    "riemannian_sgd": _SGD,
    "riemannian_sgd_twice": replace(_SGD, label="RiemannianSGD, twice the epochs", passes=2),
    "riemannian_sgd_alike": replace(_SGD, label="RiemannianSGD, settings of RSAM", settings_of="rsam"),
    "rsam": Method("RSAM, SGD", _rsam, "rho", "sgd", "rho", "riemannian_sgd"),
    "projected_sam": Method("projected SAM, SGD", _projected, "rho", "sgd", "projected_rho", "riemannian_sgd"),
    "riemannian_adam": _ADAM,
    "riemannian_adam_twice": replace(_ADAM, label="RiemannianAdam, twice the epochs", passes=2),
    "riemannian_adam_alike": replace(_ADAM, label="RiemannianAdam, settings of RSAM", settings_of="rsam_adam"),
    "rsam_adam": Method("RSAM, Adam", _rsam_adam, "rho", "adam", "rho", "riemannian_adam"),
    "projected_sam_adam": Method(
        "projected SAM, Adam", _projected_adam, "rho", "adam", "projected_rho", "riemannian_adam"
    ),
}
