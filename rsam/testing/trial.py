"""Make small models on a manifold, with the optimizer to check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import geoopt
import torch
from torch import Tensor

from rsam.geometry import geometry_of, pairing
from rsam.testing.points import metric_norm

__all__ = ["Interrupted", "Model", "Trial"]

Loss = Callable[[Tensor], Tensor]


class Interrupted(Exception):
    """Error that a closure raises on purpose."""


class Model:
    """Parameters with an optimizer and a closure; ``grouped`` if each parameter is to have a group of its own.

    Attributes
    ----------
    x : geoopt.ManifoldParameter
        Parameter on the manifold.
    plain : torch.nn.Parameter
        Plain parameter.
    """

    def __init__(self, trial: Trial, x: Tensor, loss: Loss, grouped: bool = False) -> None:
        self.x = geoopt.ManifoldParameter(x.clone(), manifold=trial.manifold)
        self.plain = torch.nn.Parameter(torch.zeros(2, dtype=x.real.dtype))
        self.optimizer: Any = _grouped(trial, self.x, self.plain) if grouped else trial.factory([self.x, self.plain])
        if not hasattr(self.optimizer, "step"):
            raise TypeError(f"factory must return an optimizer, got {self.optimizer!r}")
        self._loss = loss
        self.calls = 0
        self.interrupt_at = -1

    def closure(self) -> Tensor:
        """Clear gradients, compute the loss, and call ``backward``."""
        self.calls += 1
        self.optimizer.zero_grad()
        loss = self._loss(self.x) + ((self.plain - 1) ** 2).sum() / 4
        loss.backward()
        if self.calls == self.interrupt_at:
            raise Interrupted
        return loss

    def step(self, count: int = 1) -> Any:
        """Take steps, and return the result of the last."""
        result = None
        for _ in range(count):
            result = self.optimizer.step(self.closure)
        return result

    def values(self) -> list[Tensor]:
        """Return copies of the parameters."""
        return [self.x.detach().as_subclass(Tensor).clone(), self.plain.detach().clone()]

    def gradients(self) -> list[Tensor]:
        """Return the gradients of what is minimised at the parameters: of the negative loss with ``maximize``."""
        self.closure()
        assert self.x.grad is not None and self.plain.grad is not None
        kinds = {bool(group.get("maximize")) for group in self.optimizer.param_groups}
        if len(kinds) > 1:
            raise NotImplementedError("some parameter groups maximise, and others do not")
        sign = -1 if kinds == {True} else 1
        return [sign * self.x.grad.as_subclass(Tensor), sign * self.plain.grad]

    def set_rho(self, rho: float) -> None:
        """Set the radius of all parameter groups."""
        for group in self.optimizer.param_groups:
            group["rho"] = rho


def _grouped(trial: Trial, x: Tensor, plain: Tensor) -> Any:
    """Make an optimizer with one parameter in each of two groups."""
    try:
        optimizer = trial.factory([x])
        optimizer.add_param_group({"params": [plain]})
        _, _ = optimizer.param_groups
    except Exception as error:  # what a factory may do with its list of two parameters is not known
        raise NotImplementedError("no group can be added to an optimizer of the first parameter") from error
    return optimizer


@dataclass(frozen=True)
class Trial:
    """Subject of the tests: a factory of optimizers, and a manifold.

    Attributes
    ----------
    factory : callable
        Returns an optimizer of a list of parameters.
    manifold : geoopt.Manifold
        Manifold of the first of two parameters; the other one is plain.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> trial = rsam.testing.steps.Trial(lambda params: rsam.RSAM(params, lr=0.1), geoopt.Sphere())
    >>> x = torch.tensor([0.6, 0.8])
    >>> model = trial.model(x, x.flip(0), 0 * x)
    >>> first, last = model.step(), model.step(5)
    >>> last < first
    tensor(True)
    """

    factory: Callable[[list[Tensor]], Any]
    manifold: geoopt.Manifold

    def loss(self, x: Tensor, a: Tensor, b: Tensor) -> Loss:
        """Return ``s (a . y + (b . y)^2 / 2)``, with ``s`` such that the gradient at ``x`` is short in the metric.

        So steps with learning rates up to 1 stay where retractions by addition lead to points on the manifold.

        Parameters
        ----------
        x, a, b : Tensor
            Point and ambient arrays, all of one shape.
        """

        def raw(y: Tensor) -> Tensor:
            return pairing([a], [y]) + pairing([b], [y]) ** 2 / 2

        geometry = geometry_of(self.manifold)
        gradient = geometry.raise_index(x, a + pairing([b], [x]) * b)
        second = geometry.raise_index(x, b)
        scale = 0.25 / max(0.25, metric_norm(geometry, x, gradient), metric_norm(geometry, x, second) ** 2)
        return lambda y: scale * raw(y)

    def model(self, x: Tensor, a: Tensor, b: Tensor) -> Model:
        """Return a model at a point.

        Parameters
        ----------
        x, a, b : Tensor
            Point, and the arrays of the loss, all of one shape.
        """
        return Model(self, x, self.loss(x, a, b))

    def sam(self, x: Tensor, a: Tensor, b: Tensor) -> Model:
        """Return a model whose optimizer perturbs.

        Parameters
        ----------
        x, a, b : Tensor
            Point, and the arrays of the loss, all of one shape.

        Raises
        ------
        NotImplementedError
            If the optimizer lacks ``first_step``, ``second_step``, ``restore`` or ``base_optimizer``.
        """
        model = self.model(x, a, b)
        names = ("first_step", "second_step", "restore", "base_optimizer")
        if not all(hasattr(model.optimizer, name) for name in names):
            raise NotImplementedError("the optimizer does not perturb, or not as RSAM does")
        return model
