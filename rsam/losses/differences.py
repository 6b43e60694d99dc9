"""Take differences of a loss and of its gradient along curves that agree with geodesics to second order.

Plain parameters, whose curves are straight, are moved by ``torch._foreach``; the others by autograd. After
``model.double()`` points are off their manifolds by the rounding of single precision. A retraction puts them there, by
a move that may be longer than the step of a difference, so that curves are shifted to start at the point itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rsam import geometry
from rsam.losses.closure import Evaluations, full_precision

__all__ = ["add", "forward_difference", "symmetric_sum", "tangent_parts"]


@torch.no_grad()
def add(xs: Sequence[Tensor], ys: Sequence[Tensor], factor: float = 1.0) -> list[Tensor]:
    """Return ``x + factor * y`` for each pair of tensors, without a graph."""
    return list(torch._foreach_add(list(xs), list(ys), alpha=factor)) if xs else []


def forward_difference(
    gradient: list[Tensor],
    direction: list[Tensor],
    step: float,
    evaluate: Evaluations,
    cotangent: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    r"""Return the value at :math:`R_x(t r)`, and the change of the gradient, :math:`t\,\mathrm{Hess}[r] + O(t^2)`.

    Parameters
    ----------
    gradient : list of Tensor
        The Euclidean gradient at the parameters, in these and in the other leaves.
    direction : list of Tensor
        Tangents ``r`` at the parameters.
    step : float
        The length ``t``.
    evaluate : Evaluations
        Values and gradients of the same function.
    cotangent : Tensor, optional
        Covector in the values of a function that is no scalar, whose pullbacks are the gradients.

    Returns
    -------
    tuple of Tensor and list of Tensor
        The value, and the change as covectors at the parameters and at the other leaves.
    """
    params = evaluate.params
    plain, curved, space = _split(evaluate.space)
    with full_precision(params):
        tangents = [(step * direction[i]).detach().requires_grad_() for i in curved]
        zeros = [torch.zeros_like(v, requires_grad=True) for v in tangents]
        ends, starts = (space.retract_second_order(space.params, vs) for vs in (tangents, zeros))
    straight = add(_pick(params, plain), _pick(direction, plain), step)
    points = _merge(plain, straight, curved, _shifted(ends, starts, space.params))
    value, moved = evaluate(points, gradient, cotangent)
    if curved:
        before = list(gradient)
        with full_precision(params), torch.no_grad():
            # gradient of the function lifted to the tangent space, whose Hessian at zero is the Riemannian one
            _put(moved, curved, torch.autograd.grad(ends, tangents, _pick(moved, curved)))
            _put(before, curved, torch.autograd.grad(starts, zeros, _pick(gradient, curved)))
        gradient = before
    return value, tangent_parts(evaluate.space, add(moved, gradient, -1))


@torch.no_grad()
def tangent_parts(space: geometry.Product, covectors: list[Tensor]) -> list[Tensor]:
    """Return the tangential parts of covectors; covectors behind those of the parameters are unchanged.

    The normal part of a difference is no derivative: it does not vanish with the step. Divided by the step, it would
    dominate the norm by which gradients are clipped.
    """
    _, curved, bent_space = _split(space)
    if not curved:
        return covectors
    with full_precision(space.params):
        points = bent_space.params
        bent = bent_space.lower_index(points, bent_space.raise_index(points, _pick(covectors, curved)))
    parts = list(covectors)
    _put(parts, curved, bent)
    return parts


def symmetric_sum(
    gradient: list[Tensor], coordinates: list[Tensor], step: float, evaluate: Evaluations
) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    r"""Return the losses at :math:`R_x(\pm t B_x z)`, and the gradient of their sum with ``z`` fixed.

    Parameters
    ----------
    gradient : list of Tensor
        The gradient at ``x``.
    coordinates : list of Tensor
        The coordinates ``z``.
    step : float
        The length ``t``.
    evaluate : Evaluations
        Values and gradients of the loss.

    Returns
    -------
    tuple of (Tensor, Tensor) and list of Tensor
        The two losses, and the gradient in the parameters and in the other leaves.
    """
    params = evaluate.params
    plain, curved, space = _split(evaluate.space)
    points = space.params
    with full_precision(params):
        tangents = space.from_coordinates(points, _pick(coordinates, curved))
        starts = space.retract_second_order(points, [torch.zeros_like(v) for v in tangents])
        ends = [
            _shifted(space.retract_second_order(points, [t * v for v in tangents]), starts, points)
            for t in (step, -step)
        ]
    losses, gradients = [], []
    for t, end in zip((step, -step), ends, strict=True):
        straight = add(_pick(params, plain), _pick(coordinates, plain), t)
        loss, moved = evaluate(_merge(plain, straight, curved, end), gradient)
        losses.append(loss)
        gradients.append(moved)
    total = add(gradients[0], gradients[1])
    if curved:
        with full_precision(params):
            bent = torch.autograd.grad([*ends[0], *ends[1]], points, [g[i] for g in gradients for i in curved])
        _put(total, curved, bent)
    return (losses[0], losses[1]), total


def _shifted(ends: Sequence[Tensor], starts: Sequence[Tensor], points: Sequence[Tensor]) -> list[Tensor]:
    """Return the ends of curves from ``starts``, moved along with these to ``points``."""
    return [(end - start) + x for end, start, x in zip(ends, starts, points, strict=True)]


def _split(space: geometry.Product) -> tuple[list[int], list[int], geometry.Product]:
    """Return the indices of plain parameters and of those on manifolds, and the product manifold of the latter."""
    indices: tuple[list[int], list[int]] = ([], [])
    for i, p in enumerate(space.params):
        indices[p.is_complex() or not geometry.is_plain(p)].append(i)
    return *indices, space.part(indices[1])


def _pick(tensors: Sequence[Tensor], indices: list[int]) -> list[Tensor]:
    return [tensors[i] for i in indices]


def _put(tensors: list[Tensor], indices: list[int], values: Sequence[Tensor]) -> None:
    for i, value in zip(indices, values, strict=True):
        tensors[i] = value


def _merge(plain: list[int], first: Sequence[Tensor], curved: list[int], second: Sequence[Tensor]) -> list[Tensor]:
    if not curved:
        return list(first)
    placed = {**dict(zip(plain, first, strict=True)), **dict(zip(curved, second, strict=True))}
    return [placed[i] for i in range(len(placed))]
