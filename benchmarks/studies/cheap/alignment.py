"""Measure how far the gradient of a part of a batch points along that of the whole, while a network trains."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor, nn

import rsam
from benchmarks.machine import alone
from benchmarks.methods import METHODS
from benchmarks.run import Run
from benchmarks.runs.steps import Tally, part_of
from benchmarks.runs.training import prepare, train_epoch
from benchmarks.workloads.problem import Batch, Problem

__all__ = ["Alignment", "Cosines", "cosines", "measure_alignment"]


@dataclass(frozen=True)
class Alignment:
    """Network to train, and the parts of its batches whose gradients are compared with that of the whole.

    Attributes
    ----------
    run : Run
        Scored on validation data; its scores are not used.
    parts : tuple of float
        In (0, 1).
    """

    run: Run
    parts: tuple[float, ...]

    @property
    def key(self) -> str:
        """Hash of the run and the parts."""
        return hashlib.sha256(f"{self.run.key} {self.parts}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Cosines:
    """What was measured.

    Attributes
    ----------
    run : Alignment
        The network and the parts.
    by_epoch : list of list of float
        Cosine of each part on the first batch of each epoch, in the metric of the product manifold.
    seconds : float
        Duration.
    """

    run: Alignment
    by_epoch: list[list[float]]
    seconds: float

    def mean(self, part: float) -> float:
        """Average the cosines of a part over the epochs."""
        column = self.run.parts.index(part)
        return fmean(of_epoch[column] for of_epoch in self.by_epoch)


def measure_alignment(alignment: Alignment) -> Cosines:
    """Train a network, and compare gradients on the first batch of each epoch before it is trained on.

    Parameters
    ----------
    alignment : Alignment
        The network and the parts.

    Returns
    -------
    Cosines
        One row per epoch; fewer of a network that diverges.
    """
    began, run, rows = time.perf_counter(), alignment.run, list[list[float]]()
    with alone():
        problem = prepare(run)
        method = METHODS[run.method]
        optimizer, objective = method.build(problem.model, run), method.objective(problem.model, run)
        watched = replace(problem, batches=_watched(problem, alignment.parts, rows))
        for epoch in range(run.epochs):
            if train_epoch(epoch, run, watched, optimizer, objective, Tally()) is None:
                break
    return Cosines(alignment, rows, round(time.perf_counter() - began, 2))


def _watched(problem: Problem, parts: Sequence[float], rows: list[list[float]]) -> Callable[[int], Iterable[Batch]]:
    def batches(epoch: int) -> Iterator[Batch]:
        for i, batch in enumerate(problem.batches(epoch)):
            if i == 0:
                rows.append(cosines(problem.model, problem.loss, batch, parts))
            yield batch

    return batches


def cosines(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], batch: Batch, parts: Sequence[float]
) -> list[float]:
    """Compare Riemannian gradients of parts of a batch with that of the whole; the model is left as it was.

    Parameters
    ----------
    model : torch.nn.Module
        In the mode that it trains in: batch norm sees each part by itself, as in an ascent.
    loss : callable
        Mean loss of outputs and targets.
    batch : tuple of Tensor
        Inputs and targets.
    parts : sequence of float
        Of the batch, from its beginning.

    Returns
    -------
    list of float
        Cosines in the metric of the product of all parameters' manifolds.
    """
    space = rsam.geometry.Product(model.named_parameters())
    buffers = [b.clone() for b in model.buffers()]

    def gradient(inputs: Tensor, targets: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss(model(inputs), targets), space.params)
        return space.raise_index(space.points, list(found))

    whole = gradient(*batch)
    some = [gradient(*part_of(batch, part)) for part in parts]
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        points = space.points
        size = space.norm(points, whole)
        return [float(space.inner(points, whole, u) / (size * space.norm(points, u))) for u in some]
