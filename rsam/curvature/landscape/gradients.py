"""Follow the gradient of a risk along a geodesic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from rsam.errors import NotFinite
from rsam.evaluation.optional import progress
from rsam.evaluation.risk import Risk

__all__ = ["CHANGE", "SLOPE", "gradients_along"]

SLOPE, CHANGE = "slope", "gradient change"
#: Makes a context in which the parameters are at given ends, which belong to a coordinate.
Visit = Callable[[list[Tensor], float], AbstractContextManager[None]]


def gradients_along(
    risk: Risk, direction: list[Tensor], coordinates: Sequence[float], visit: Visit, progressbar: bool
) -> dict[str, np.ndarray]:
    """Return the slope of a risk along a geodesic, and how far its gradient is from the one at the start.

    Both are nan where the gradient is not finite.
    """
    space, params = risk.space, [p.detach() for p in risk.params]
    with visit(params, 0.0):
        at_start = risk.gradient()
    with torch.no_grad():
        at_start = space.raise_index(params, at_start)
    rows = []
    for t in progress(coordinates, show=progressbar, desc="gradients", unit="point"):
        with torch.enable_grad():
            time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
            curve = space.exponential(params, [time * d for d in direction])
            ends = [y.to(p.dtype) for p, y in zip(params, curve, strict=True)]
        points = [y.detach() for y in ends]
        try:
            with visit(points, t):
                gradient = risk.gradient()
        except NotFinite:
            rows.append((math.nan, math.nan))
            continue
        (slope,) = torch.autograd.grad(ends, time, gradient)
        with torch.no_grad():
            raised = space.raise_index(points, gradient)
            back = space.transport_back(params, [t * d for d in direction], points, raised, exact=True)
            change = space.norm(params, list(torch._foreach_sub(back, at_start)))
        rows.append((float(slope), float(change)))
    return dict(zip((SLOPE, CHANGE), np.array(rows).T, strict=True))
