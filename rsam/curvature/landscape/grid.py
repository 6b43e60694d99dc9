"""Evaluate a loss on lines and planes through the weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rsam.curvature.landscape.batch_norm import BatchNorm, StatisticsBetween, may_keep_statistics
from rsam.curvature.landscape.directions import Directions
from rsam.curvature.landscape.gradients import gradients_along
from rsam.curvature.landscape.result import Line, Plane
from rsam.curvature.landscape.solutions import Solution, geodesic_to
from rsam.curvature.landscape.survey import LENGTH, Measure, Survey
from rsam.curvature.landscape.trajectory import Trajectory
from rsam.evaluation.parameters import as_integer
from rsam.evaluation.risk import Data, LossFunc, Params, Risk

__all__ = ["line", "plane"]

Range = tuple[float, float]


def line(
    model_func: Callable[[Any], Any],
    loss_func: LossFunc,
    params: Params,
    data: Data,
    direction: Literal["random", "filter", "gradient"] | Sequence[Tensor] = "random",
    *,
    other: Solution | None = None,
    extent: float | Range | None = None,
    steps: int = 51,
    batch_norm: BatchNorm = "eval",
    measures: Mapping[str, Measure] | None = None,
    gradients: bool = False,
    batch_size_fn: Callable[[Any], int] | None = None,
    in_memory: bool = True,
    seed: int | torch.Generator = 0,
    progressbar: bool = False,
) -> Line:
    r"""Evaluate a risk along a geodesic through the weights, :math:`t \mapsto f(\exp_x(t d))`.

    On plain parameters the geodesic is the straight line :math:`x + t d`.

    Parameters
    ----------
    model_func, loss_func, params, data : as for :class:`~rsam.curvature.RiemannianHessian`
        The model, its loss, the parameters to move, and the data. Layers other than batch norm are evaluated in the
        mode that they are in.
    direction : {"random", "filter", "gradient"} or sequence of Tensor
        ``"random"``: isotropic, of unit length in the metric. ``"filter"``: the same, filter-normalised
        (:func:`normalize_filters`). ``"gradient"``: the unit direction of steepest ascent, with ``"recompute"`` for
        statistics as they are here. Or a tangent of your own, one tensor per parameter that is not frozen, whose length
        is kept.
    other : torch.nn.Module, mapping or sequence of Tensor, optional
        Follow the geodesic to this solution instead: a network of the same form, its ``state_dict()``, or its weights.
        The first two need parameters with names, those of ``model_func`` or of ``params``.
    extent : float or (float, float), optional
        Greatest coordinate on either side, or the first and the last; by default 1, and from 0 to 1 for ``other``.
    steps : int
        Number of points, the ends included.
    batch_norm : {"eval", "batch", "recompute"}
        Whether batch norm uses its running statistics, those of each batch, or running statistics that are averaged
        over ``data`` anew at each point, at twice the cost. The first shows the function that is deployed; but its
        statistics are those of the present weights, and a wall in the picture may only show that they do not suit
        rescaled ones. Between solutions they are interpolated, so that they are right at both ends, not in the middle.
    measures : mapping of str to callable, optional
        What else to evaluate: functions of outputs and targets that return a mean over the examples of a batch.
    gradients : bool
        Take the gradient at each point too, at about three times the cost. ``line.measures`` then has ``"slope"``, the
        derivative of the loss by the coordinate, and ``"gradient change"``. This is the distance between the gradient
        at the weights and that at the point, brought back by the vector transport (gradient predictiveness, Santurkar
        et al. 2018). Both are nan where the gradient is not finite. They are refused where running statistics of batch
        norm change along the line, with ``"recompute"`` and between solutions: the gradient takes them for constants.
    batch_size_fn : callable, optional
        Takes the inputs of a batch and returns the number of its examples, as for
        :class:`~rsam.curvature.RiemannianHessian`.
    in_memory : bool
        Keep the batches, on the device of the parameters, so that a loader is read once, and not for each point. A
        loader that is not kept must yield the same examples each time.
    seed : int or torch.Generator
        Source of a random direction.
    progressbar : bool
        Show a bar over the points.

    Returns
    -------
    Line
        With the losses, which may be infinite or nan where they diverge.

    Raises
    ------
    ValueError, RuntimeError
        For bad options, and as :class:`~rsam.curvature.RiemannianHessian`; if no loss is finite.
    UnsupportedOperation
        For a manifold without an exponential or, with ``other``, a logarithm; names it and the parameter.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> data = torch.ones(1, 1), torch.zeros(1, 1)
    >>> line = rsam.curvature.landscape.line(
    ...     model, torch.nn.MSELoss(), model.parameters(), data, "gradient", steps=3)
    >>> line.coordinates, line.loss
    (array([-1.,  0.,  1.]), array([0., 1., 4.]))
    """
    risk = Risk(model_func, loss_func, params, data, batch_size_fn=batch_size_fn)
    survey = Survey(risk, batch_norm, measures, in_memory, progressbar)
    if other is not None:
        if not (isinstance(direction, str) and direction == "random"):
            raise ValueError("direction and other exclude each other: other is reached along its own geodesic")
        tangents, unit = [geodesic_to(risk.space, risk.names, other, "other")], "fraction of the way"
        if batch_norm == "eval":
            survey.statistics = StatisticsBetween(risk.model, other)
    else:
        tangents, unit = survey.directions(direction if isinstance(direction, str) else [direction], 1, seed)
    between = survey.statistics is not None and survey.statistics.moves
    if gradients and (between or (batch_norm == "recompute" and may_keep_statistics(risk.model))):
        raise ValueError(
            "gradients: the running statistics of batch norm change along this line, of which the gradient knows "
            "nothing, so that it is not that of these losses; pass batch_norm='batch'"
        )
    t = _coordinates(extent if extent is not None else (0.0, 1.0) if other is not None else 1.0, steps)
    loss, found = survey.at(tangents, [(s,) for s in t.tolist()])
    if gradients:
        found |= gradients_along(risk, tangents[0], t.tolist(), survey.visit, progressbar)
    return Line(loss, survey.lengths(tangents), unit, found, t)


def plane(
    model_func: Callable[[Any], Any],
    loss_func: LossFunc,
    params: Params,
    data: Data,
    directions: Literal["random", "filter"] | Directions | Trajectory = "random",
    *,
    extent: float | Range | Sequence[Range] | None = None,
    steps: int | tuple[int, int] = 51,
    batch_norm: BatchNorm = "eval",
    measures: Mapping[str, Measure] | None = None,
    batch_size_fn: Callable[[Any], int] | None = None,
    in_memory: bool = True,
    seed: int | torch.Generator = 0,
    progressbar: bool = False,
) -> Plane:
    r"""Evaluate a risk on a plane of geodesics through the weights, :math:`(a, b) \mapsto f(\exp_x(a d + b e))`.

    On plain parameters it is the plane :math:`x + a d + b e`.

    Parameters
    ----------
    model_func, loss_func, params, data : as for :func:`line`
        The model, its loss, the parameters to move, and the data.
    directions : {"random", "filter"}, two sequences of Tensor, or Trajectory
        Random directions as for :func:`line`, two tangents of your own, or what :func:`trajectory_directions` found,
        whose path is then in the picture.
    extent : float, (float, float), or two of the latter, optional
        Greatest coordinate on either side, or the first and the last, of both directions or of each. The default is 1;
        for a trajectory, what its path needs.
    steps : int or (int, int)
        Number of points along each direction.
    batch_norm, measures, batch_size_fn, in_memory : as for :func:`line`
        How batch norm normalises, what else to measure, how to weight batches, and whether to keep them.
    seed : int or torch.Generator
        Source of random directions.
    progressbar : bool
        Show a bar over the points.

    Returns
    -------
    Plane
        With the losses, which may be infinite or nan where they diverge.

    Raises
    ------
    ValueError, RuntimeError, UnsupportedOperation
        As for :func:`line`.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(2, 1)
    >>> data = torch.randn(8, 2), torch.randn(8, 1)
    >>> plane = rsam.curvature.landscape.plane(
    ...     model, torch.nn.MSELoss(), model.parameters(), data, "filter", steps=(5, 3))
    >>> plane.loss.shape, plane.unit
    ((5, 3), 'filter norms')
    >>> axes = plane.plot()
    """
    risk = Risk(model_func, loss_func, params, data, batch_size_fn=batch_size_fn)
    survey = Survey(risk, batch_norm, measures, in_memory, progressbar)
    path: np.ndarray | None = None
    chosen: Any = directions
    if isinstance(directions, Trajectory):
        path, chosen = directions.coordinates, directions.directions
        extent = directions.extent() if extent is None else extent
    tangents, unit = survey.directions(chosen, 2, seed)
    unit = unit if path is None else LENGTH
    extents: Any = 1.0 if extent is None else extent
    if np.ndim(extents) == 0 or all(np.ndim(end) == 0 for end in extents):
        extents = (extents, extents)
    counts: Any = (steps, steps) if np.ndim(steps) == 0 else steps
    if len(extents) != 2 or len(counts) != 2:
        raise ValueError(f"extent and steps must be one for both directions or one for each, got {extent} and {steps}")
    x, y = map(_coordinates, extents, counts)
    loss, found = survey.at(tangents, list(itertools.product(x.tolist(), y.tolist())))
    shape = (len(x), len(y))
    measured = {name: values.reshape(shape) for name, values in found.items()}
    return Plane(loss.reshape(shape), survey.lengths(tangents), unit, measured, x, y, path)


def _coordinates(extent: Any, steps: int) -> np.ndarray:
    """Return the coordinates of the points in one direction, for an extent ``r`` or ``(low, high)``."""
    ends = np.asarray(extent, dtype=np.float64)
    low, high = (-ends, ends) if ends.ndim == 0 else ends if ends.shape == (2,) else (np.nan, np.nan)
    if not (np.isfinite(ends).all() and low < high):
        raise ValueError(f"extent must be positive or a rising pair, and finite, got {extent}")
    return np.linspace(low, high, as_integer("steps", steps, 2))
