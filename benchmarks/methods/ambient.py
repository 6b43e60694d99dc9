"""Ablation: SAM's ascent in the ambient space of constrained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

import rsam

__all__ = ["AmbientSAM"]


class AmbientSAM(rsam.optim.RiemannianSGD):
    """Riemannian SGD with the gradient from weights that are perturbed as if there were no manifold.

    The ascent is that of Foret et al. 2021, ``w + rho g / |g|`` with the Euclidean gradient of all parameters; the
    perturbed weights are off the manifold. The gradient there is handed to Riemannian SGD at ``w`` as it is. What
    tells it from RSAM is the geometry of the ascent and of the way back, nothing else.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them.
    model : torch.nn.Module
        Whose batch-norm statistics the second pass leaves alone.
    rho : float
        Radius of the perturbation.
    **options
        Of :class:`rsam.optim.RiemannianSGD`.
    """

    def __init__(self, params: Iterable[Any], model: nn.Module, rho: float, **options: Any) -> None:
        super().__init__(params, **options)
        self.rho = rho
        self._norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; the closure is called twice."""
        assert closure is not None, "AmbientSAM.step needs a closure"
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
            gradients = [p.grad.clone() for p in held]
            starts = [p.detach().clone() for p in held]
            statistics: list[Tensor] = [b for m in self._norms for b in m.buffers()]
            before = [b.clone() for b in statistics]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
            try:
                if norm > 0:  # else there is no way up
                    torch._foreach_add_(held, torch._foreach_mul(gradients, self.rho / norm))
                with torch.enable_grad():
                    closure()
            finally:
                torch._foreach_copy_(held, starts)
                if statistics:
                    torch._foreach_copy_(statistics, before)
        super().step()
        return loss
