"""What a method of training is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.runs.configuration import Run

Knob = Literal["weight_decay", "rho", "penalty"]
#: Takes a closure that returns the loss on a batch, and returns what is differentiated.
Objective = Callable[[Callable[[], Tensor]], Tensor]


def plain_loss(closure: Callable[[], Tensor]) -> Tensor:
    """The objective of methods without a penalty."""
    return closure()


def _plain_objective(model: nn.Module, run: Run) -> Objective:
    return plain_loss


@dataclass(frozen=True)
class Method:
    """How a name becomes an optimizer, and weights on manifolds where the method wants them there.

    Attributes
    ----------
    name : str
        As in :attr:`Run.method`.
    label : str
        For tables and figures.
    build : callable
        Takes a freshly initialised model, which it may constrain in place, and the run, whose ``lr``, ``rho`` and so
        on it heeds; returns an optimizer whose ``step`` takes a closure.
    knob : {"weight_decay", "rho", "penalty"}
        The field of :class:`Run` that is tuned beside the learning rate.
    gradients : int
        Gradient evaluations of a step.
    objective : callable
        Takes the built model and the run; returns what makes the objective of a batch from a closure that returns its
        loss.
    manifold : {"plain", "spheres", "stiefel"}
        Where the kernels of convolutions live.
    """

    name: str
    label: str
    build: Callable[[nn.Module, Run], torch.optim.Optimizer]
    knob: Knob = "weight_decay"
    gradients: int = 1
    objective: Callable[[nn.Module, Run], Objective] = _plain_objective
    manifold: Literal["plain", "spheres", "stiefel"] = "plain"

    @property
    def has_rho(self) -> bool:
        """Whether :attr:`Run.rho` matters."""
        return self.knob == "rho"
