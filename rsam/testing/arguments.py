"""Check the arguments of check_manifold and check_optimizer, before other packages raise less helpful errors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import geoopt
import torch
from geoopt.manifolds.siegel.siegel import SiegelManifold

from rsam.geometry.registry import checked_manifold

__all__ = ["checked_functions", "checked_shape", "in_precision"]

Shape = tuple[int, ...]


def checked_shape(manifold: Any, shape: Any, dtype: Any, max_examples: Any) -> Shape:
    """Return the shape of points, after a check of all four arguments.

    Raises
    ------
    TypeError
        For an argument of another type; names it.
    ValueError
        For an argument out of range, and a shape that points of the manifold cannot have; names it.
    """
    try:
        checked_manifold(manifold)
    except TypeError as error:
        raise TypeError(f"manifold: {error}") from None
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a torch.dtype, such as torch.float64, got {dtype!r}")
    if not (dtype.is_floating_point or dtype.is_complex):
        raise ValueError(f"dtype must be one of real or complex numbers, such as torch.float64, got {dtype}")
    if not isinstance(max_examples, int):
        raise TypeError(f"max_examples must be an int, got {max_examples!r}")
    if max_examples < 1:
        raise ValueError(f"max_examples must be at least 1, got {max_examples}")
    if not isinstance(shape, tuple | list) or not all(isinstance(size, int) for size in shape):
        raise TypeError(f"shape must be a tuple of sizes, such as (3,) for a vector, got {shape!r}")
    _check_fit(manifold, tuple(shape))
    return tuple(shape)


def _check_fit(manifold: geoopt.Manifold, shape: Shape) -> None:
    name, ndim = type(manifold).__name__, manifold.ndim
    if len(shape) < ndim:  # geoopt's own checks may fail before they say so
        raise ValueError(f"shape must have {ndim} or more dimensions, since a point of {name} has {ndim}; got {shape}")
    if not all(size > 0 for size in shape):
        raise ValueError(f"shape must have sizes of at least 1, got {shape}")
    ok, reason = manifold._check_shape(shape, "x")
    if isinstance(manifold, geoopt.SymmetricPositiveDefinite | SiegelManifold) and shape[-1] != shape[-2]:
        ok, reason = False, "`x` should have shape[-1] == shape[-2]"  # which geoopt does not check
    if not ok:
        raise ValueError(f"shape must be one of points x of {name}, got {shape}: {reason}")


def in_precision(manifold: geoopt.Manifold, dtype: torch.dtype) -> geoopt.Manifold:
    """Return a manifold whose constants have a precision: a copy if they have another one."""
    return manifold if manifold.dtype in (None, dtype) else copy.deepcopy(manifold).to(dtype)


def checked_functions(argument: str, functions: Iterable[Callable[..., None]], where: str) -> list[Callable[..., None]]:
    """Return a list of properties; ``where`` is the module that defines them, for the message.

    Raises
    ------
    TypeError
        If it is no list, or has anything but functions; names the argument.
    """
    listed: list[Any] = list(functions) if isinstance(functions, Iterable) else [functions]
    if not isinstance(functions, Iterable) or not all(map(callable, listed)):
        raise TypeError(f"{argument} must be a list of functions, such as those of {where}, got {functions!r}")
    return listed
