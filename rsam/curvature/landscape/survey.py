"""Evaluate a risk, and whatever else is asked for, at the ends of many geodesics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rsam.curvature.landscape.batch_norm import MODES, BatchNorm, StatisticsBetween, normalizing
from rsam.curvature.landscape.directions import as_tangents, ascent_direction, draw, random_directions
from rsam.curvature.landscape.gradients import CHANGE, SLOPE
from rsam.errors import NotFinite
from rsam.evaluation import at_points
from rsam.evaluation.batches import examples_of, move
from rsam.evaluation.optional import progress
from rsam.evaluation.risk import Risk, check_repeats

__all__ = ["LENGTH", "Measure", "Survey"]

#: Maps outputs and targets of a batch to a mean over its examples.
Measure = Callable[[Any, Any], Tensor]

LENGTH, _FILTERS, _MULTIPLES = "geodesic length", "filter norms", "multiples"


class Survey:
    """Evaluator of a risk and other measures at the ends of geodesics."""

    def __init__(
        self,
        risk: Risk,
        batch_norm: BatchNorm,
        measures: Mapping[str, Measure] | None,
        in_memory: bool,
        progressbar: bool,
    ) -> None:
        if batch_norm not in MODES:
            raise ValueError(f"batch_norm must be one of {MODES}, got {batch_norm!r}")
        self.risk, self.batch_norm, self.progressbar = risk, batch_norm, progressbar
        self.measures = dict(measures or {})
        for name in ("loss", SLOPE, CHANGE):
            if name in self.measures:
                raise ValueError(f"measures: {name!r} means something here; take another name")
        self.statistics: StatisticsBetween | None = None
        if in_memory:
            with risk.evaluating():
                risk.data = [move(batch, risk.params[0].device) for batch in risk.data]
        elif not isinstance(risk.data, Sequence):
            with torch.no_grad(), normalizing(risk, batch_norm):
                first, again = (float(self._measured()[0]) for _ in range(2))
            check_repeats(first, again)

    def directions(self, chosen: Any, count: int, seed: int | torch.Generator) -> tuple[list[list[Tensor]], str]:
        """Return tangents, and what a coordinate along them counts."""
        named = list(zip(self.risk.names, self.risk.params, strict=True))
        if not isinstance(chosen, str):
            chosen = list(chosen)
            if len(chosen) != count:
                raise ValueError(f"directions must be {count} lists of tensors, got {len(chosen)}")
            return [as_tangents(self.risk.space, d) for d in chosen], _MULTIPLES
        if chosen == "random":
            return draw(self.risk.space, count, seed), LENGTH
        if chosen == "filter":
            return random_directions(named, count, filter_normalized=True, seed=seed), _FILTERS
        if chosen == "gradient" and count == 1:
            with normalizing(self.risk, self.batch_norm):
                return [ascent_direction(self.risk)], LENGTH
        choices = ["random", "filter"] + ["gradient"] * (count == 1)
        raise ValueError(f"direction must be one of {choices} or tangents, got {chosen!r}")

    @torch.no_grad()
    def lengths(self, tangents: list[list[Tensor]]) -> tuple[float, ...]:
        """Return the norms of tangents in the metric."""
        return tuple(float(self.risk.space.norm(self.risk.params, d)) for d in tangents)

    @torch.no_grad()
    def at(
        self, tangents: list[list[Tensor]], offsets: Sequence[tuple[float, ...]]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return loss and measures at combinations of tangents with these coefficients."""
        risk = self.risk
        rows = []
        for offset in progress(offsets, show=self.progressbar, desc="landscape", unit="point"):
            step = [t * offset[0] for t in tangents[0]]
            for coefficient, tangent in zip(offset[1:], tangents[1:], strict=True):
                torch._foreach_add_(step, tangent, alpha=coefficient)
            ends = risk.space.exponential(risk.params, step)
            with self.visit([y.to(p.dtype) for p, y in zip(risk.params, ends, strict=True)], offset[0]):
                rows.append(self._measured())
        table = torch.stack(rows).cpu().double().numpy()  # the only time that a device is waited for
        if not np.isfinite(table[:, 0]).any():
            raise NotFinite("the loss is finite nowhere on this line or plane; take a smaller extent")
        return table[:, 0], {name: table[:, k] for k, name in enumerate(self.measures, 1)}

    @contextmanager
    def visit(self, ends: list[Tensor], coordinate: float) -> Iterator[None]:
        """Put the parameters at the end of a geodesic, with the statistics that belong there."""
        between = nullcontext() if self.statistics is None else self.statistics.at(coordinate)
        with at_points(self.risk.params, ends), between, normalizing(self.risk, self.batch_norm):
            yield

    def _measured(self) -> Tensor:
        """Return loss and measures at the present weights, without waiting for the device."""
        losses: list[Tensor] = []
        others: list[list[Tensor]] = []
        weights, examples = [], []
        with self.risk.evaluating():
            for outputs, targets, weight in self.risk.outputs(order=1):
                losses.append(self.risk.loss_of(outputs, targets, may_diverge=True))
                weights.append(weight)
                if self.measures:
                    others.append([_scalar(name, f(outputs, targets)) for name, f in self.measures.items()])
                    examples.append(_count(targets))
        means = [_weighted(losses, weights, self.risk.total(weights))]
        for column in zip(*others, strict=True):
            means.append(_weighted(column, examples, sum(examples)))
        return torch.stack([m.to(means[0].device, means[0].dtype) for m in means])


def _weighted(values: Iterable[Tensor], weights: Sequence[float], total: float) -> Tensor:
    """Return a weighted sum over ``total``, at least in single precision."""
    wide = [v.detach().reshape(()).to(torch.promote_types(v.dtype, torch.float32)) for v in values]
    return torch.stack([v * (w / total) for v, w in zip(wide, weights, strict=True)]).sum()


def _scalar(name: str, value: Any) -> Tensor:
    number = torch.as_tensor(value)
    if number.numel() != 1:
        raise ValueError(f"measures: {name!r} must return a mean over the examples, got shape {tuple(number.shape)}")
    return number


def _count(targets: Any) -> float:
    count = examples_of(targets)
    if count is None:
        raise ValueError("measures are averaged over examples, but the targets hold no tensor that counts them")
    return float(count)
