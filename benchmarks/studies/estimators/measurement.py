"""Measure an estimator on a network: its estimates over many seeds, the exact value, or traces by differences."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import rsam
from benchmarks.machine import one_thread, peak_megabytes
from benchmarks.studies.estimators.estimators import ESTIMATORS, PRODUCTS, Problem
from benchmarks.studies.estimators.networks import batch, load, run_of

__all__ = ["EXACT", "INTERVALS", "KINKS", "STEPS", "Measured", "Measurement", "measure"]

EXACT, KINKS = "exact", "kinks"
#: Estimates whose intervals are measured, with their options.
INTERVALS: dict[str, dict[str, Any]] = {
    "intervals, Hutchinson": {},
    "intervals, XTrace": {"method": "xtrace"},
}
#: Steps of the three-point differences, as fractions of the weights' root mean square in each direction.
STEPS = (1e-3, 1e-2, 1e-1)
_KINK_PROBES = 10


@dataclass(frozen=True)
class Measurement:
    """Configuration of a measurement.

    Attributes
    ----------
    network : str
        See :mod:`benchmarks.studies.estimators.networks`.
    estimator : str
        One of :data:`ESTIMATORS`; or ``"exact"``, for the trace by all products and the top eigenvalue to rounding;
        or ``"kinks"``, for the trace by derivatives and by differences of several steps, with the same probes and in
        double precision; or one of :data:`INTERVALS`.
    seeds : int
        Number of seeds.
    """

    network: str
    estimator: str
    seeds: int = 20

    @property
    def key(self) -> str:
        """Hash of the configuration."""
        content = {**asdict(self), "network": run_of(self.network).key, "products": PRODUCTS}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.estimator} on {self.network}"


@dataclass(frozen=True)
class Measured:
    """Results of a measurement.

    Attributes
    ----------
    run : Measurement
        The configuration.
    values : list of float
        Estimates, one per seed; for ``"exact"`` trace, top eigenvalue and size; for ``"kinks"`` the trace by
        derivatives, the traces by differences, then for each step the cosine between the gradients of both traces; for
        intervals the lower and the upper end of each in turn.
    seconds : float
        Median time of an estimate, construction of the operator included.
    gradients : float
        The same time in units of a gradient evaluation.
    megabytes : float
        Increase of the process's peak memory over that of a gradient evaluation.
    """

    run: Measurement
    values: list[float]
    seconds: float
    gradients: float
    megabytes: float


@one_thread()
def measure(measurement: Measurement, directory: Path) -> Measured:
    """Make a measurement on one thread."""
    dtype = torch.float64 if measurement.estimator == KINKS else torch.float32
    problem = Problem(load(measurement.network, directory, dtype), batch(measurement.network, dtype))
    _gradient_seconds(problem)
    before = peak_megabytes()
    values: list[float] = []
    times: list[tuple[float, float]] = []

    def once(estimate: Any) -> None:
        # time the gradient right after the estimate, so that a slow moment of the machine hits both
        times.append((_seconds(lambda: values.extend(estimate())), _gradient_seconds(problem)))

    with contextlib.redirect_stdout(io.StringIO()):
        if measurement.estimator == EXACT:
            once(lambda: _exact(problem))
        elif measurement.estimator == KINKS:
            once(lambda: _kinks(problem))
        elif measurement.estimator in INTERVALS:
            for seed in range(measurement.seeds):
                once(lambda s=seed: _interval(problem, s, **INTERVALS[measurement.estimator]))
        else:
            named = ESTIMATORS[measurement.estimator]
            for seed in range(measurement.seeds):
                once(lambda s=seed: [named.estimate(problem, named.operator(problem), s)])
    seconds = statistics.median(estimate for estimate, _ in times)
    gradients = statistics.median(estimate / gradient for estimate, gradient in times)
    return Measured(measurement, values, seconds, gradients, peak_megabytes() - before)


def _gradient_seconds(problem: Problem) -> float:
    return statistics.median(_seconds(lambda: torch.autograd.grad(problem.loss(), problem.params)) for _ in range(5))


def _exact(problem: Problem) -> list[float]:
    hessian = problem.hessian()
    top = rsam.curvature.top_eigenvalues(hessian, rtol=1e-6).values[0]
    return [float(rsam.curvature.trace(hessian, method="exact")), float(top), float(hessian.shape[0])]


def _kinks(problem: Problem) -> list[float]:
    """Compute traces with the same probes, and cosines between their gradients."""
    params = problem.params
    rms = (sum(float(p.detach().square().sum()) for p in params) / sum(p.numel() for p in params)) ** 0.5
    options: list[dict[str, Any]] = [{"method": "exact"}]
    options += [{"method": "difference", "step": step * rms} for step in STEPS]
    values, gradients = [], []
    for option in options:
        penalty = rsam.losses.HessianTrace(params, probes=_KINK_PROBES, **option)
        value = penalty(problem.loss)
        covectors = torch.autograd.grad(value, params, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            raised = rsam.geometry.Product(params).raise_index(params, covectors)
        values.append(float(value.detach()))
        gradients.append((list(covectors), raised))
    norms = [float(rsam.geometry.pairing(c, r)) ** 0.5 for c, r in gradients]
    cosines = [
        float(rsam.geometry.pairing(gradients[0][0], r)) / (norms[0] * norm)
        for (_, r), norm in zip(gradients[1:], norms[1:], strict=True)
    ]
    return values + cosines


def _interval(problem: Problem, seed: int, **options: Any) -> tuple[float, float]:
    return rsam.curvature.trace(problem.hessian(), PRODUCTS, seed=seed, **options).interval()


def _seconds(part: Any) -> float:
    start = time.perf_counter()
    part()
    return time.perf_counter() - start
