"""Check whether points are on their manifolds."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from rsam.errors import NotFinite
from rsam.geometry.blocks import Block, widened
from rsam.geometry.product import Product
from rsam.geometry.sharded import local

__all__ = ["off_manifold", "warn_off_manifold"]


@torch.no_grad()
def off_manifold(space: Product) -> dict[int, float]:
    """Find the parameters that are off their manifolds by more than 1e-5, or in half precision by more than rounding.

    The check reads every number, and waits for the device: call it when an optimizer is made or after weights are
    loaded, not in each step. Parameters on the meta device, sharded ones, and those on manifolds without a
    projection are left out.

    Parameters
    ----------
    space : Product
        The parameters.

    Returns
    -------
    dict of int to float
        By index in ``space.params``, the largest change of a number by the projection, divided by the largest number if
        that is above 1; NaN for points without a projection, such as the zero vector on a sphere.

    Raises
    ------
    NotFinite
        For a point that is not finite; names the parameter.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> points = [torch.tensor([0.6, 0.8]), torch.tensor([0.6, 0.9])]
    >>> rsam.geometry.off_manifold(rsam.geometry.Product(points, manifolds=[geoopt.Sphere()] * 2))
    {1: 0.067...}
    """
    found: dict[int, float] = {}
    with torch._C.DisableTorchFunctionSubclass():
        for block in space.blocks:
            members = [space.params[i].detach() for i in block.indices]
            if block.plain or members[0].is_meta or not members[0].numel() or local(members[0]) is not members[0]:
                continue
            x = block.gather_points(members)
            if not bool(x.isfinite().all()):
                first = next(r for r, member in enumerate(members) if not bool(member.isfinite().all()))
                raise NotFinite(f"{block.names[first]} is not finite; initialise it anew, or load it again")
            found |= _off(block, x)
    return dict(sorted(found.items()))


def _off(block: Block, x: Tensor) -> dict[int, float]:
    tolerance = max(1e-5, 8 * torch.finfo(block.dtype).eps)  # geoopt's own tolerance, unless rounding is coarser
    try:
        if block.geometry.contains(x, tolerance):
            return {}
        projected = block.apply("project_point", x)
    except (NotImplementedError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
        return {}
    rows = zip(block.indices, block.unstack(x), block.unstack(projected), strict=True)
    sizes = {i: _difference(widened(a), widened(b)) for i, a, b in rows}
    return {i: size for i, size in sizes.items() if not size <= tolerance}


def _difference(x: Tensor, y: Tensor) -> float:
    return float((y - x).abs().max() / x.abs().max().clamp_min(1))


def warn_off_manifold(space: Product, stacklevel: int = 2) -> None:
    """Warn of parameters that are off their manifolds; name them, the distance, and what to do.

    Parameters
    ----------
    space : Product
        The parameters.
    stacklevel : int
        As for :func:`warnings.warn`: 2 for the caller.

    Raises
    ------
    NotFinite
        For a point that is not finite; names the parameter.

    Examples
    --------
    >>> import geoopt, torch, rsam, warnings
    >>> space = rsam.geometry.Product([("direction", torch.ones(2))], manifolds=[geoopt.Sphere()])
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     rsam.geometry.warn_off_manifold(space)
    >>> print(caught[0].message)
    'direction' (shape (2,), Sphere) is off its manifold by 0.3; put it there first: ...
    """
    for i, size in off_manifold(space).items():
        if size == size:
            what = f"off its manifold by {size:.1g}; put it there first: "
            remedy = "with torch.no_grad(): p.copy_(p.manifold.projx(p))"
        else:
            what, remedy = "off its manifold and has no projection onto it (a zero vector?); ", "initialise it anew"
        warnings.warn(f"{space.describe(i)} is {what}{remedy}", stacklevel=stacklevel + 1)
