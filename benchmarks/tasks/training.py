"""Training a model on a task as a trial says."""

from __future__ import annotations

import math
import statistics
import time
from contextlib import suppress
from typing import Any

import torch

import rsam
from benchmarks.machine import alone, device_name, peak_megabytes
from benchmarks.runs.steps import gradient_closure, take_step
from benchmarks.tasks.methods import METHODS
from benchmarks.tasks.trial import Outcome, Trial
from benchmarks.workloads.manifolds import worst_violation
from benchmarks.workloads.problem import Problem

__all__ = ["attempt", "prepare", "train"]

PROBES = 20


def attempt(trial: Trial) -> Outcome:
    """Train on one thread; the same trial gives the same outcome on the same machine, but for its time and memory.

    Parameters
    ----------
    trial : Trial
        What to train.

    Returns
    -------
    Outcome
        What came of it.
    """
    began = time.perf_counter()
    with alone():
        return train(trial, prepare(trial), began)


def prepare(trial: Trial) -> Problem:
    """The problem of a trial, its model freshly initialised."""
    from benchmarks.tasks import TASKS  # which imports this package

    torch.manual_seed(trial.seed)
    return TASKS[trial.task](trial)


def train(trial: Trial, problem: Problem, began: float) -> Outcome:
    """Train the model of a problem in place.

    Parameters
    ----------
    trial : Trial
        Method, learning rate and epochs.
    problem : Problem
        Everything else.
    began : float
        When the trial began, in seconds of ``time.perf_counter``.

    Returns
    -------
    Outcome
        What came of it.
    """
    method, model = METHODS[trial.method], problem.model
    optimizer: Any = method.build(model.parameters(), trial)
    times: list[float] = []
    losses: list[float] = []
    diverged = False
    model.train()
    for epoch in range(trial.epochs):
        of_epoch = []
        for i, batch in enumerate(problem.batches(epoch)):
            for group in optimizer.param_groups:
                group["lr"] = trial.lr * problem.schedule((epoch + i / problem.steps) / trial.epochs)
            closure = gradient_closure(model, optimizer, *batch, loss=problem.loss)
            before = time.perf_counter()
            loss = take_step(optimizer, closure)
            times.append(time.perf_counter() - before)
            if loss is None:
                diverged = True
                break
            of_epoch.append(loss)
        if diverged:
            break
        losses.append(statistics.fmean(of_epoch))
    model.eval()
    diverged = diverged or not all(torch.isfinite(p).all() for p in model.parameters())
    scores: dict[str, float] = {}
    if not diverged:
        try:
            scores = problem.scores()
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # a matrix that became singular to rounding
            diverged = True
    return Outcome(
        run=trial,
        diverged=diverged,
        scores=scores,
        train_loss=losses,
        curvature=_curvature(problem, trial.seed) if trial.curvature and not diverged else {},
        violation=worst_violation(model),
        gradients=len(times) * method.gradients,
        seconds_per_step=statistics.median(times),
        seconds=time.perf_counter() - began,
        megabytes=peak_megabytes(),
        device=device_name(),
        torch_version=torch.__version__,
    )


def _curvature(problem: Problem, seed: int) -> dict[str, float]:
    """Gradient norm, trace and top eigenvalue of the training loss, in the metric; nan of what cannot be measured."""
    params = list(problem.model.parameters())
    hessian = rsam.curvature.RiemannianHessian(problem.model, problem.loss, params, problem.measured)
    found = dict.fromkeys(("gradient_norm", "trace", "trace_error", "top_eigenvalue"), math.nan)
    # an eigenvalue may not converge, and a product not be finite; the scores of the trial stand without
    with suppress(RuntimeError):
        found["gradient_norm"] = rsam.curvature.gradient_norm(problem.model, problem.loss, params, [problem.measured])
        trace = rsam.curvature.trace(hessian, PROBES, seed=seed)
        found["trace"], found["trace_error"] = float(trace), trace.standard_error
        found["top_eigenvalue"] = float(rsam.curvature.top_eigenvalues(hessian, rtol=1e-2, seed=seed).values[0])
    return found
