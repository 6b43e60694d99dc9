"""Read other solutions of a model, and follow geodesics to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rsam import geometry
from rsam.evaluation.reduction import uncompiled, uncompiled_name
from rsam.evaluation.risk import Params, trainable
from rsam.geometry.linalg import largest
from rsam.geometry.registry import is_euclidean

__all__ = ["Solution", "direction_to", "geodesic_to", "named_tensors", "space_of", "wide"]

#: Weights of another network of the same form: the network, its ``state_dict()``, or one tensor per parameter.
Solution = nn.Module | Mapping[str, Tensor] | Sequence[Tensor]


def direction_to(params: Params, other: Solution) -> list[Tensor]:
    """Return the tangent whose geodesic reaches another solution at time 1.

    On plain parameters that is the difference. Two of these span the plane through three solutions.

    Parameters
    ----------
    params : iterable of Tensor or of (str, Tensor)
        Where the geodesic starts, as ``model.named_parameters()`` gives them; frozen ones are left out.
    other : torch.nn.Module, mapping or sequence of Tensor
        A network of the same form, its ``state_dict()``, or one tensor for each parameter that is not frozen. The first
        two need names in ``params``.

    Returns
    -------
    list of Tensor
        One per parameter that is not frozen, at least in single precision.

    Raises
    ------
    ValueError
        If ``other`` lacks a parameter, or has one of another shape, off its manifold or not finite; names it.
    UnsupportedOperation
        For a manifold without a logarithm, such as the Stiefel manifolds; names it and the parameter.

    Examples
    --------
    >>> import torch, rsam
    >>> a, b = torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(2, 1, bias=False)
    >>> (direction,) = rsam.curvature.landscape.direction_to(a.named_parameters(), b)
    >>> torch.allclose(a.weight + direction, b.weight)
    True
    """
    params = trainable(params)
    return geodesic_to(space_of(params), [name for name, _ in params], other, "other")


def space_of(params: Params) -> geometry.Product:
    """Return the product manifold of the parameters that are not frozen."""
    given = trainable(params)
    return geometry.Product([p for _, p in given], names=[name for name, _ in given])


@torch.no_grad()
def geodesic_to(space: geometry.Product, names: Sequence[str], other: Solution, what: str) -> list[Tensor]:
    """Return the logarithm of another solution, which messages call ``what``."""
    given = _ends(space, names, other, what)
    points, ends = wide(space.params), wide(given)  # in half precision differences would be rounded, too
    tangents: list[Tensor] = space.logarithm(points, ends)
    reached = space.exponential(points, tangents)
    normal = [t - part for t, part in zip(tangents, space.restore_tangent(points, tangents), strict=True)]
    for i, (x, y, end) in enumerate(zip(space.params, ends, reached, strict=True)):
        # the logarithm of what is no point of the manifold is some tangent or other, and that of an antipode, to which
        # all ways are equally long, is nan, or on manifolds of others rounding blown up to their length
        if not is_euclidean(space.manifolds[i]):
            error, aside, size, length = map(largest, (end - y, normal[i], y, tangents[i]))
            rounding = torch.finfo(x.dtype).eps ** 0.5
            if not (error <= rounding * (1 + size) and aside <= rounding * (1 + length)):
                raise ValueError(
                    f"{what}: no geodesic to its {space.describe(i)} was found, only one that ends {error:.1e} away; "
                    "is it a point of that manifold, and neither antipodal nor beyond the reach of the logarithm?"
                )
    return tangents


def _ends(space: geometry.Product, names: Sequence[str], other: Solution, what: str) -> list[Tensor]:
    """Return the weights of another solution, one tensor per parameter."""
    if isinstance(other, nn.Module | Mapping):
        held = named_tensors(other)
        missing = [name for name in names if name not in held]
        if missing:
            raise ValueError(
                f"{what} has no {missing[0]!r}; it must be a network of the same form, or its state_dict(), and "
                "params be named as model.named_parameters() names them"
            )
        ends = [held[name] for name in names]
    else:
        ends = list(other)
        if len(ends) != len(names):
            raise ValueError(f"{what} has {len(ends)} tensors, but {len(names)} of params are not frozen")
    for i, (x, y) in enumerate(zip(space.params, ends, strict=True)):
        if x.shape != y.shape:
            raise ValueError(f"{what}: {space.describe(i)} has shape {tuple(y.shape)} there")
        if not torch.isfinite(y).all():
            raise ValueError(f"{what}: {space.describe(i)} is not finite there")
    return [y.detach().to(x.device, x.dtype) for x, y in zip(space.params, ends, strict=True)]


def named_tensors(solution: nn.Module | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors of a network by name, without the prefix of compiled ones."""
    held = uncompiled(solution).state_dict() if isinstance(solution, nn.Module) else solution
    return {uncompiled_name(name): tensor for name, tensor in held.items()}


def wide(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors at least in single precision: steps along them would be lost in half precision."""
    return [t.detach().to(torch.promote_types(t.dtype, torch.float32)) for t in tensors]
