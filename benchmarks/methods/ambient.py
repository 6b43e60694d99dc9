"""Perturb weights on manifolds in the ambient space, as plain SAM does, for ablations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["AmbientAscent"]


class AmbientAscent:
    """Optimizer that takes the gradient at weights that are perturbed as if there were no manifold.

    The ascent is that of Foret et al. 2021, eq. 2, ``w + rho g / |g|`` with the Euclidean gradient of all parameters
    and its Euclidean norm. The base optimizer gets the gradient there unchanged, at ``w``. It differs from
    :class:`rsam.RSAM` in the geometry of the ascent and of the way back alone. No ``direction`` of RSAM can replace
    it: whatever the direction, RSAM follows the manifold.

    Parameters
    ----------
    base : torch.optim.Optimizer
        Takes the step.
    model : torch.nn.Module
        The model; the second pass does not update its batch-norm statistics.
    rho : float
        Radius of the perturbation, in the ambient space.
    project : bool
        Project the perturbed weights onto their manifolds.
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
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        statistics = [b for m in self._norms for b in m.buffers()]
        saved = [t.detach().clone() for t in (*params, *statistics)]
        try:
            self._ascend(params)
            with torch.enable_grad():
                closure()
        finally:
            torch._foreach_copy_([*params, *statistics], saved)
        self.base.step()
        return loss

    def _ascend(self, params: list[Tensor]) -> None:
        gradients = [p.grad for p in params if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if norm > 0:  # at a zero gradient no direction goes up
            torch._foreach_add_(params, torch._foreach_mul(gradients, self.rho / norm))
            for p in params:
                if self.project and hasattr(p, "manifold"):
                    p.copy_(p.manifold.projx(p))
