"""Train one model according to a run's configuration."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import rsam
from benchmarks.machine import alone, device_name, peak_megabytes
from benchmarks.methods import METHODS
from benchmarks.methods.method import Objective
from benchmarks.run import Row, Run
from benchmarks.runs.measurement import CURVES, FIFTHS, measure, on_curve
from benchmarks.runs.steps import Tally, gradient_closure, part_of, take_step
from benchmarks.workloads.manifolds import worst_violation
from benchmarks.workloads.problem import Problem

__all__ = ["fit", "prepare", "train", "train_epoch", "train_model"]


def train(run: Run, weights: Path | None = None) -> Row:
    """Train on one thread or on a GPU; a run repeated on the same machine gives the same row except time and memory.

    Parameters
    ----------
    run : Run
        Workload, method and settings.
    weights : Path, optional
        Directory in which the ``state_dict`` is kept as ``KEY.pt``, if the model is measured on test data.

    Returns
    -------
    Row
        Its results.
    """
    row, model = train_model(run)
    if weights is not None and run.heldout == "test":
        weights.mkdir(parents=True, exist_ok=True)
        part = weights / f"{run.key}.part"
        torch.save(model.state_dict(), part)
        os.replace(part, weights / f"{run.key}.pt")  # so that no half-written file is left
    return row


def train_model(run: Run) -> tuple[Row, nn.Module]:
    """Train as :func:`train` does, and return the trained model too."""
    began = time.perf_counter()
    with alone():
        problem = prepare(run)
        return fit(run, problem, began), problem.model


def prepare(run: Run) -> Problem:
    """Initialise the model and the data of a run, on the GPU if there is one."""
    return run.workload.prepare(run.seed, run.heldout)


def fit(run: Run, problem: Problem, began: float) -> Row:
    """Train the model of a problem in place.

    Parameters
    ----------
    run : Run
        Method, settings, epochs and measures.
    problem : Problem
        Model, data, loss and scores.
    began : float
        Time at which the run began, by ``time.perf_counter``.

    Returns
    -------
    Row
        Its results.
    """
    method, model = METHODS[run.method], problem.model
    start = [p.detach().clone() for p in model.parameters()]
    optimizer, objective = method.build(model, run), method.objective(model, run)
    later = rsam.optim.LambdaRho(optimizer, lambda epoch: float(epoch >= run.late * run.epochs)) if run.late else None
    tally = Tally()
    curves: defaultdict[str, list[float]] = defaultdict(list)
    scores: dict[str, float] | None = None
    for epoch in range(run.epochs):
        loss = train_epoch(epoch, run, problem, optimizer, objective, tally)
        if later is not None:
            later.step()
        if loss is not None:
            curves["loss"].append(loss)
        recorded = on_curve(run.measures, epoch + 1, run.epochs)
        if loss is None or recorded or epoch == run.epochs - 1:
            scores = _scores(problem)
            for name, score in (scores or {}).items() if recorded else ():
                curves[name].append(score)
        if loss is None:
            break
    diverged = loss is None or scores is None or not all(torch.isfinite(p).all() for p in model.parameters())
    names = [name for name in run.measures if name not in (CURVES, FIFTHS)]
    return Row(
        run=run,
        diverged=diverged,
        scores=scores or {},
        curves=dict(curves),
        measures={} if diverged else measure(problem, names, start, run.seed),
        violation=worst_violation(model),
        gradients=tally.gradients,
        seconds_per_step=statistics.median(tally.seconds),
        seconds=time.perf_counter() - began,
        megabytes=peak_megabytes(),
        device=device_name(),
        torch_version=torch.__version__,
    )


def train_epoch(
    epoch: int, run: Run, problem: Problem, optimizer: Any, objective: Objective, tally: Tally
) -> float | None:
    """Take a step per batch; return the mean loss, or None as soon as a loss or a gradient is not finite."""
    problem.model.train()
    losses = []
    for i, batch in enumerate(problem.batches(epoch)):
        factor = problem.schedule((epoch + i / problem.steps) / run.epochs)
        for group in optimizer.param_groups:  # each has a rate of its own, kept under the name that torch gives it
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        closures = []
        for inputs, targets in (batch, part_of(batch, run.part)) if run.part < 1 else (batch,):
            count = partial(tally.differentiated, len(inputs) / len(batch[0]))
            closures.append(gradient_closure(problem.model, optimizer, inputs, targets, objective, problem.loss, count))
        before = time.perf_counter()
        loss = take_step(optimizer, *closures)
        tally.seconds.append(time.perf_counter() - before)
        if loss is None:
            return None
        losses.append(loss)
    return statistics.fmean(losses)


def _scores(problem: Problem) -> dict[str, float] | None:
    """Score the model; return None if a matrix has become singular to rounding."""
    problem.model.eval()
    try:
        return problem.scores()
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return None
