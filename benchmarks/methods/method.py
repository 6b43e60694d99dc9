"""What a method of training is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from benchmarks.run import Run

__all__ = ["Method", "Objective", "plain_loss"]

#: Takes a closure that returns the loss on a batch, and returns what is differentiated.
Objective = Callable[[Callable[[], Tensor]], Tensor]


def plain_loss(closure: Callable[[], Tensor]) -> Tensor:
    """Take the loss as it is, for methods without a penalty."""
    return closure()


def _plain_objective(model: nn.Module, run: Run) -> Objective:
    return plain_loss


@dataclass(frozen=True)
class Method:
    """How a name becomes an optimizer.

    Attributes
    ----------
    name : str
        As in :attr:`Run.method`.
    label : str
        For tables and figures.
    build : callable
        Takes a freshly initialised model, its weights where they live, and the run, whose ``lr``, ``rho`` and so on it
        heeds; returns an optimizer whose ``step`` takes a closure.
    gradients : int
        Gradient evaluations of a step.
    objective : callable
        Takes the model and the run; returns what makes the objective of a batch from a closure that returns its loss.
    """

    name: str
    label: str
    build: Callable[[nn.Module, Run], Any]
    gradients: int = 1
    objective: Callable[[nn.Module, Run], Objective] = _plain_objective
