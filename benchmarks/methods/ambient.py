"""Ablations: SAM's ascent in the ambient space of weights on manifolds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["AmbientAscent"]


class AmbientAscent:
    """An optimizer with the gradient from weights that are perturbed as if there were no manifold.

    The ascent is that of Foret et al. 2021, eq. 2, ``w + rho g / |g|`` with the Euclidean gradient of all parameters
    and its Euclidean norm. The gradient there is handed to the base optimizer at ``w`` as it is. What tells it from
    :class:`rsam.RSAM` is the geometry of the ascent and of the way back, nothing else. No ``direction`` of RSAM's does
    it: whatever the direction, RSAM follows the manifold.

    Parameters
    ----------
    base : torch.optim.Optimizer
        Takes the step.
    model : torch.nn.Module
        Whose batch-norm statistics the second pass leaves alone.
    rho : float
        Radius of the perturbation, in the ambient space.
    project : bool
        Put the perturbed weights back on their manifolds, or leave them off.
    """

    def __init__(self, base: torch.optim.Optimizer, model: nn.Module, rho: float, *, project: bool = False) -> None:
        self.base = base
        self.rho = rho
        self.project = project
        self.param_groups = base.param_groups
        self._norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]

    def zero_grad(self) -> None:
        """Forget gradients."""
        self.base.zero_grad()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        """Take one step; the closure is called twice."""
        with torch.enable_grad():
            loss = closure()
        held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        statistics = [b for m in self._norms for b in m.buffers()]
        kept = [t.detach().clone() for t in (*held, *statistics)]
        try:
            self._ascend(held)
            with torch.enable_grad():
                closure()
        finally:
            torch._foreach_copy_([*held, *statistics], kept)
        self.base.step()
        return loss

    def _ascend(self, held: list[Tensor]) -> None:
        gradients = [p.grad for p in held if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if norm > 0:  # else there is no way up
            torch._foreach_add_(held, torch._foreach_mul(gradients, self.rho / norm))
            for p in held:
                if self.project and hasattr(p, "manifold"):
                    p.copy_(p.manifold.projx(p))
