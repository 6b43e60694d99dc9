"""What a method of training is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.runs.configuration import Run


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
    has_rho : bool
        Whether :attr:`Run.rho` matters.
    """

    name: str
    label: str
    build: Callable[[nn.Module, Run], torch.optim.Optimizer]
    has_rho: bool = False
