"""Define a method of training: its optimizer, objective and cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from benchmarks.run import Run

__all__ = ["Method", "Objective", "plain_loss"]

#: Maps a closure that returns the loss on a batch to the objective that is differentiated.
Objective = Callable[[Callable[[], Tensor]], Tensor]


def plain_loss(closure: Callable[[], Tensor]) -> Tensor:
    """Return the loss itself, the objective of methods without a penalty."""
    return closure()


def _plain_objective(model: nn.Module, run: Run) -> Objective:
    return plain_loss


@dataclass(frozen=True)
class Method:
    """Method of training, by the name that runs use.

    Attributes
    ----------
    name : str
        As in :attr:`Run.method`.
    label : str
        For tables and figures.
    build : callable
        Takes a freshly initialised model, its weights on their manifolds already, and the run, from which it reads
        ``lr``, ``rho`` and so on; returns an optimizer whose ``step`` takes a closure.
    gradients : float
        Gradient evaluations per step, of runs that ascend from the whole batch in every step.
    objective : callable
        Takes the model and the run; returns a function from a closure of a batch's loss to its objective.
    """

    name: str
    label: str
    build: Callable[[nn.Module, Run], Any]
    gradients: float = 1
    objective: Callable[[nn.Module, Run], Objective] = _plain_objective
