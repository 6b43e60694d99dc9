"""The arithmetic of RSAM on lists of tensors: up to the perturbed point, and the gradient's way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import geoopt
import torch
from torch import Tensor

from rsam import geometry

__all__ = ["ascend", "bring_back", "gradient_direction", "scale"]

Transport = Literal["vector", "pullback", "project"]


def gradient_direction(
    params: Sequence[Tensor], gradients: Sequence[Tensor], adaptive: Sequence[bool]
) -> tuple[list[Tensor], Tensor]:
    r"""Riemannian gradients ``r`` and their norm over the whole product, :math:`\sqrt{\sum_k g_k \cdot r_k}`.

    ASAM is the metric :math:`1/|p|^2` on the plain parameters marked ``adaptive``.
    """
    directions = geometry.riemannian_gradient(params, gradients)
    directions = [p.abs() ** 2 * r if a else r for p, r, a in zip(params, directions, adaptive, strict=True)]
    # rounding may make the pairing of a vanishing gradient negative
    return directions, geometry.pairing(gradients, directions).clamp_min(0).sqrt()


def scale(directions: Sequence[Tensor], rhos: Sequence[float], norm: Tensor) -> list[Tensor]:
    """Directions times ``rho / norm``, each on its own device; nowhere to go from a stationary point."""
    inverse = torch.where(norm > 0, 1 / norm, torch.zeros_like(norm))
    places: dict[tuple[float, torch.device], list[int]] = {}
    for i, (d, rho) in enumerate(zip(directions, rhos, strict=True)):
        places.setdefault((rho, d.device), []).append(i)
    scaled = list(directions)
    for (rho, device), members in places.items():
        factor = (rho * inverse).to(device)
        for i, e in zip(members, torch._foreach_mul([directions[i] for i in members], factor), strict=True):
            scaled[i] = e
    return scaled


def ascend(params: Sequence[Tensor], ascents: Sequence[Tensor], exact: bool) -> None:
    """Move the parameters along tangents, in place; plain ones without a temporary."""
    plain = [i for i, p in enumerate(params) if geometry.is_plain(p)]
    curved = [i for i, p in enumerate(params) if not geometry.is_plain(p)]
    if curved:
        points = [params[i] for i in curved]
        torch._foreach_copy_(points, geometry.retract(points, [ascents[i] for i in curved], exact=exact))
    if plain:
        torch._foreach_add_([params[i] for i in plain], [ascents[i] for i in plain])


def bring_back(
    points: Sequence[Tensor],
    gradients: Sequence[Tensor],
    origins: Sequence[Tensor],
    ascents: Sequence[Tensor],
    manifolds: Sequence[geoopt.Manifold],
    transport: Transport,
    exact: bool,
) -> list[Tensor]:
    """Covectors at ``origins`` for Euclidean gradients at ``points``, the ends of ``ascents``."""
    if transport == "project":
        return list(gradients)
    if transport == "pullback":
        return geometry.pullback(origins, ascents, gradients, exact=exact, manifolds=manifolds)
    tangents = geometry.riemannian_gradient(points, gradients, manifolds=manifolds)
    carried = geometry.transport_back(origins, ascents, points, tangents, exact=exact, manifolds=manifolds)
    # lowered, since the base optimizer raises what it finds in p.grad
    return geometry.lower_index(origins, carried, manifolds=manifolds)
