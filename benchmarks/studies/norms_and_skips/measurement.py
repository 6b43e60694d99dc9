"""What is measured of a network while it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.data import Dataset
from benchmarks.runs.numbers import digits, or_none, rounded
from benchmarks.studies.norms_and_skips.units import in_units
from benchmarks.workloads.problem import Batch
from benchmarks.workloads.scoring import accuracy, logits

__all__ = ["CURVATURE", "EXTENT", "LENGTHS", "Checkpoint", "landscape", "measure"]

#: Training images, the same for all networks, around which curvature is measured, with the statistics of this batch.
CURVATURE = 200
PROBES = 8
#: Steps of gradient descent at which loss and gradient are looked at, in units of the learning rate; evenly spaced.
LENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
#: The landscape: greatest coordinate, in units of the filters' norms, and points along each direction.
EXTENT, POINTS = 1.0, 25
_LANCZOS, _GRID, _MARGIN = 24, 128, 0.05

_LOSS = nn.CrossEntropyLoss()


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a network after some epochs.

    Attributes
    ----------
    epoch : int
        How many; 0 before the first step.
    scores : dict of str to float
        Loss and accuracy on all training and test data, in evaluation mode.
    curvature : dict of str to float
        Hessian trace and three greatest eigenvalues, and the trace in units of the filters' norms; the smallest
        eigenvalue where there is a density; standard errors of traces.
    gradient : dict of str to list of float
        Loss and gradient after steps of gradient descent of :data:`LENGTHS` times the learning rate: ``"loss"``,
        ``"change"`` of the gradient (norm of its difference from the one at the start) and ``"distance"``; and
        ``"norm"`` of the gradient, one number.
    density : dict of str to list of float
        ``"low"`` and ``"high"`` end of an even grid, and the ``"density"`` of eigenvalues on it; or nothing.
    """

    epoch: int
    scores: dict[str, float]
    curvature: dict[str, float | None]
    gradient: dict[str, list[float | None]]
    density: dict[str, Any]


def measure(model: nn.Module, data: Dataset, epoch: int, rate: float, *, spectrum: bool) -> Checkpoint:
    """Measure a network as it is, and leave it so."""
    scores = rounded(_scores(model, data))
    model.train()  # batch norm takes the statistics of the batch, as it does in the loss that is descended
    batch = data.train_images[:CURVATURE], data.train_labels[:CURVATURE]
    hessian = _hessian(model, list(model.named_parameters()), batch)
    density, ends = _density(hessian) if spectrum else ({}, {})
    function, units = in_units(model)
    found = _trace("trace", hessian) | _trace("unit_trace", _hessian(function, units, batch))
    return Checkpoint(
        epoch=epoch,
        scores=scores,
        curvature=rounded(found | _top(hessian) | ends),
        gradient=_along_gradient(model, batch, rate),
        density=density,
    )


@torch.no_grad()
def landscape(model: nn.Module, batch: Batch, seed: int) -> list[list[float | None]]:
    """Return the loss on a plane through the weights, in two filter-normalised directions (Li et al. 2018).

    Kernels move, and the head; biases and batch norm stay. Directions of a seed are the same for networks whose kernels
    have the same shapes, but for the norms that they are given.
    """
    model.train()
    params = list(model.named_parameters())
    # by the seed itself the first direction would be that of the initial weights, number by number
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    directions = []
    for _ in range(2):
        drawn = [
            torch.randn(p.shape, generator=generator).to(p) if p.dim() > 1 else torch.zeros_like(p) for _, p in params
        ]
        directions.append(rsam.curvature.landscape.normalize_filters(params, drawn))
    plane = rsam.curvature.landscape.plane(
        model, _LOSS, params, batch, directions, extent=EXTENT, steps=POINTS, batch_norm="batch"
    )
    return [digits(row, 4) for row in plane.loss.tolist()]


def _scores(model: nn.Module, data: Dataset) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for part, inputs, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.heldout_images, data.heldout_labels),
    ):
        outputs = logits(model, inputs)
        found[f"{part}_loss"] = float(cross_entropy(outputs, labels))
        found[f"{part}_accuracy"] = accuracy(outputs, labels)
    return found


def _hessian(
    function: Callable[[Tensor], Tensor], params: list[tuple[str, Any]], batch: Batch
) -> rsam.curvature.RiemannianHessian:
    return rsam.curvature.RiemannianHessian(function, _LOSS, params, batch)


def _trace(name: str, hessian: rsam.curvature.RiemannianHessian) -> dict[str, float | None]:
    found = or_none(rsam.curvature.trace, hessian, PROBES)
    return {name: found and float(found), f"{name}_error": found and found.standard_error}


def _top(hessian: rsam.curvature.RiemannianHessian) -> dict[str, float | None]:
    found = or_none(rsam.curvature.top_eigenvalues, hessian, 3, rtol=2e-2)
    return {f"eigenvalue_{k + 1}": found and float(found.values[k]) for k in range(3)}


def _density(hessian: rsam.curvature.RiemannianHessian) -> tuple[dict[str, Any], dict[str, float | None]]:
    """Return the spectral density, and the smallest eigenvalue, from which its grid starts."""
    options: dict[str, Any] = {"repeats": 1, "points": _GRID, "margin": _MARGIN}
    found = or_none(rsam.curvature.spectral_density, hessian, _LANCZOS, **options)
    if found is None:
        return {}, {"smallest": None}
    low, high = float(found.grid[0]), float(found.grid[-1])
    smallest = low + (high - low) * _MARGIN / (1 + 2 * _MARGIN)
    density = {"low": low, "high": high, "density": digits(found.density.tolist(), 4)}
    return density, {"smallest": smallest}


def _along_gradient(model: nn.Module, batch: Batch, rate: float) -> dict[str, list[float | None]]:
    """Look at loss and gradient after steps against the gradient (Santurkar et al. 2018, Sec. 3.2)."""
    params = list(model.named_parameters())
    norm = or_none(rsam.curvature.gradient_norm, model, _LOSS, params, batch)
    if not norm:
        return {}
    far = LENGTHS[-1] * rate * norm
    options: dict[str, Any] = {"extent": (-far, 0.0), "steps": len(LENGTHS), "batch_norm": "batch", "gradients": True}
    line = or_none(rsam.curvature.landscape.line, model, _LOSS, params, batch, "gradient", **options)
    if line is None:
        return {}
    found = {"loss": line.loss, "change": line.measures["gradient change"], "distance": -line.coordinates + 0.0}
    return {"norm": [norm], **{name: digits(values[::-1].tolist(), 5) for name, values in found.items()}}
