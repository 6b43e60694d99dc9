"""Measure a trained model: curvature around its weights, and their distance from the start."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

import rsam
from benchmarks.workloads.problem import Problem

__all__ = ["CURVES", "FIFTHS", "MEASURES", "Measure", "measure", "on_curve"]

#: Names of the measures that record scores after each epoch, or after each fifth of the training; by default they are
#: known after the last epoch only.
CURVES, FIFTHS = "curves", "fifths"
PROBES = 20
#: Radius of m-sharpness in the metric, and number of examples that share a perturbation.
RHO, MICRO_BATCH = 0.05, 50


def on_curve(measures: Sequence[str], epoch: int, epochs: int) -> bool:
    """Tell whether the scores after an epoch, counted from 1, are recorded.

    Examples
    --------
    >>> [epoch for epoch in range(1, 13) if on_curve([FIFTHS], epoch, 12)]
    [2, 5, 7, 10, 12]
    """
    return CURVES in measures or (FIFTHS in measures and epoch in {round(k * epochs / 5) for k in range(1, 6)})


@dataclass(frozen=True)
class _Trained:
    """Trained model with its training loss, to measure in the metric of the weights' manifolds."""

    problem: Problem
    start: list[Tensor]
    seed: int

    @cached_property
    def params(self) -> list[Tensor]:
        return list(self.problem.model.parameters())

    @cached_property
    def hessian(self) -> rsam.curvature.RiemannianHessian:
        problem = self.problem
        return rsam.curvature.RiemannianHessian(problem.model, problem.loss, self.params, problem.measured)

    def gradient_norm(self) -> dict[str, float]:
        batches = list(self.problem.whole) or [self.problem.measured]
        norm = rsam.curvature.gradient_norm(self.problem.model, self.problem.loss, self.params, batches)
        return {"gradient_norm": norm}

    def trace(self) -> dict[str, float]:
        trace = rsam.curvature.trace(self.hessian, PROBES, seed=self.seed)
        return {"trace": float(trace), "trace_error": trace.standard_error}

    def top_eigenvalue(self) -> dict[str, float]:
        top = rsam.curvature.top_eigenvalues(self.hessian, rtol=1e-2, seed=self.seed)
        return {"top_eigenvalue": float(top.values[0])}

    def sharpness(self) -> dict[str, float]:
        model, loss, batch = self.problem.model, self.problem.loss, self.problem.measured
        rise = rsam.curvature.sharpness(model, loss, self.params, batch, RHO, micro_batch=MICRO_BATCH, seed=self.seed)
        return {"sharpness": float(rise)}

    def distance(self) -> dict[str, float]:
        changes = torch._foreach_norm(torch._foreach_sub([p.detach() for p in self.params], self.start))
        return {"distance": float(torch.stack(list(changes)).norm())}


@dataclass(frozen=True)
class Measure:
    """Measurement to take after training.

    Attributes
    ----------
    label : str
        For tables.
    take : callable
        Takes the trained model; returns numbers by name, the measure's own among them.
    """

    label: str
    take: Callable[[_Trained], dict[str, float]]


MEASURES = {
    "gradient_norm": Measure("gradient norm", _Trained.gradient_norm),
    "trace": Measure("Hessian trace", _Trained.trace),
    "top_eigenvalue": Measure("top eigenvalue", _Trained.top_eigenvalue),
    "sharpness": Measure("m-sharpness", _Trained.sharpness),
    "distance": Measure("distance moved", _Trained.distance),
}


def measure(problem: Problem, names: Sequence[str], start: list[Tensor], seed: int) -> dict[str, float]:
    """Measure the training loss around the weights, in the metric of their manifolds.

    The model is in evaluation mode. The gradient norm is that on all training data; the rest is measured on a part of
    them, the same part for all methods of a seed. The trace is estimated by Hutchinson's method with 20 probes;
    m-sharpness has a radius of 0.05 and pieces of 50 examples; the distance is that in the ambient space from the
    first weights.

    Parameters
    ----------
    problem : Problem
        The problem with its trained model.
    names : sequence of str
        Keys of :data:`MEASURES`.
    start : list of Tensor
        Parameters before training, on their manifolds already.
    seed : int
        Seed of the probes.

    Returns
    -------
    dict of str to float
        Values by name, and ``trace_error``, the standard error of the trace; nan where a measurement fails.

    Raises
    ------
    ValueError
        If a name is not that of a measure.
    """
    if unknown := set(names) - MEASURES.keys():
        raise ValueError(f"there is no measure {', '.join(sorted(unknown))}; measures: {', '.join(MEASURES)}")
    problem.model.eval()
    trained = _Trained(problem, start, seed)
    numbers: dict[str, float] = {}
    for name in names:
        try:
            numbers |= MEASURES[name].take(trained)
        except RuntimeError:  # an eigenvalue did not converge or a product was not finite; the scores are still valid
            numbers[name] = math.nan
    return numbers
