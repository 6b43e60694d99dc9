"""One measurement: an estimator on a network, over many seeds or exactly, or what differences measure there."""

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
from benchmarks.machine import peak_megabytes
from benchmarks.studies.estimators.estimators import ESTIMATORS, PRODUCTS, Problem
from benchmarks.studies.estimators.networks import batch, load, run_of

__all__ = ["EXACT", "KINKS", "STEPS", "Measured", "Measurement", "measure"]

EXACT, KINKS = "exact", "kinks"
#: Steps of the three-point differences, as a fraction of the weights' root mean square in each direction.
STEPS = (1e-3, 1e-2, 1e-1)
_KINK_PROBES = 10


@dataclass(frozen=True)
class Measurement:
    """What to measure.

    Attributes
    ----------
    network : str
        See :mod:`benchmarks.studies.estimators.networks`.
    estimator : str
        See :data:`ESTIMATORS`; or ``"exact"``, for the trace by all products and the top eigenvalue to rounding, or
        ``"kinks"``, for the derivative's trace and that of differences of several steps with the same probes, in
        double precision.
    seeds : int
        How many.
    """

    network: str
    estimator: str
    seeds: int = 20

    @property
    def key(self) -> str:
        """Hash of what it depends on."""
        content = {**asdict(self), "network": run_of(self.network).key, "products": PRODUCTS}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.estimator} on {self.network}"


@dataclass(frozen=True)
class Measured:
    """What came of it.

    Attributes
    ----------
    run : Measurement
        What was asked.
    values : list of float
        Estimates by seed; for ``"exact"`` trace, top eigenvalue and size; for ``"kinks"`` the trace by derivatives,
        those by differences, then cosines between the gradients of the two traces.
    seconds : float
        Median time of an estimate, the operator made anew.
    gradients : float
        The same in gradient evaluations.
    megabytes : float
        Growth of the process's peak memory over that of a gradient evaluation.
    """

    run: Measurement
    values: list[float]
    seconds: float
    gradients: float
    megabytes: float


def measure(measurement: Measurement, directory: Path) -> Measured:
    """Measure on one thread."""
    torch.set_num_threads(1)
    dtype = torch.float64 if measurement.estimator == KINKS else torch.float32
    problem = Problem(load(measurement.network, directory, dtype), batch(measurement.network, dtype))
    _gradient_seconds(problem)
    before = peak_megabytes()
    values: list[float] = []
    times: list[tuple[float, float]] = []

    def once(estimate: Any) -> None:
        # the gradient right after it, so that a slow moment of the machine hits both
        times.append((_seconds(lambda: values.extend(estimate())), _gradient_seconds(problem)))

    with contextlib.redirect_stdout(io.StringIO()):
        if measurement.estimator == EXACT:
            once(lambda: _exact(problem))
        elif measurement.estimator == KINKS:
            once(lambda: _kinks(problem))
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
    """Traces with the same probes, and cosines of their gradients."""
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


def _seconds(part: Any) -> float:
    start = time.perf_counter()
    part()
    return time.perf_counter() - start
