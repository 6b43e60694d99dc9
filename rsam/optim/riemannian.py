"""What Riemannian SGD and Adam share: gathering gradients, and a step that happens wholly or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import geoopt
import torch
from geoopt.optim.mixin import OptimMixin
from torch import Tensor

from rsam import geometry
from rsam.optim.names import named

__all__ = ["RiemannianOptimizer"]

State = dict[str, Any]


class RiemannianOptimizer(OptimMixin, torch.optim.Optimizer):
    """Base of optimizers that raise ``p.grad``, retract, and carry their buffers to the new point.

    Points, vectors and states are handled as lists through :mod:`rsam.geometry`, so that steps are right wherever
    that is, on geoopt's own manifolds too. New weights and states are computed for all parameters before any is
    written: an exception leaves everything as it was. ``p.grad`` is never written to.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], stabilize: int | None) -> None:
        super().__init__(params, defaults, stabilize=stabilize)  # type: ignore[call-arg]  # geoopt's mix-in takes it

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, after checking that each of its parameters can be stepped.

        Raises
        ------
        ValueError
            If an option cannot be honoured, or a manifold is one that :mod:`rsam.geometry` refuses.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("step", 0)
        try:
            self._check_group(group)
        except Exception:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        for name in ("lr", "weight_decay"):
            if group[name] < 0:
                raise ValueError(f"{name} must not be negative, got {group[name]}")
        for p in group["params"]:
            geometry.geometry_of(geometry.manifold_of(p))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step.

        Parameters
        ----------
        closure : callable, optional
            Recomputes gradients and returns the loss; runs with gradients enabled.

        Returns
        -------
        Tensor or None
            What ``closure`` returned.

        Raises
        ------
        RuntimeError
            If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._step_groups()
        return loss

    def _step_groups(self) -> None:
        updates = []
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if any(p.grad.is_sparse for p in params):
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients; use a geoopt Sparse one")
            if params:
                states = [self.state.get(p, {}) for p in params]
                try:
                    points, new_states = self._update(group, params, states)
                except geometry.UnsupportedOperation as error:
                    raise named(error, self.param_groups, params) from error
                updates.append((params, points, new_states))
        for params, points, new_states in updates:
            torch._foreach_copy_(params, points)
            for p, state in zip(params, new_states, strict=True):
                self.state[p].update(state)
        for group in self.param_groups:
            group["step"] += 1
            if group["stabilize"] and group["step"] % group["stabilize"] == 0:
                self.stabilize_group(group)

    def _update(
        self, group: dict[str, Any], params: list[Tensor], states: list[State]
    ) -> tuple[list[Tensor], list[State]]:
        """Compute new points and new state entries, writing to nothing."""
        raise NotImplementedError

    @staticmethod
    def _gradients(group: dict[str, Any], params: list[Tensor], weight_decay: float) -> list[Tensor]:
        """Euclidean gradients of what is minimised: signed, and with the gradient of the L2 penalty."""
        grads = [p.grad for p in params if p.grad is not None]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if weight_decay:
            grads = list(torch._foreach_add(grads, params, alpha=weight_decay))
        return grads

    _tangent_buffers: Iterable[str] = ()

    @torch.no_grad()
    def stabilize_group(self, group: dict[str, Any]) -> None:
        """Project the points of a group onto their manifolds and its buffers onto the tangent spaces."""
        params = [p for p in group["params"] if isinstance(p, geoopt.ManifoldTensor)]
        if not params:
            return
        torch._foreach_copy_(params, geometry.project_points(params))
        for buffer in self._tangent_buffers:
            held = [p for p in params if p in self.state and buffer in self.state[p]]
            vectors = geometry.restore_tangents(held, [self.state[p][buffer] for p in held])
            for p, vector in zip(held, vectors, strict=True):
                self.state[p][buffer] = vector
