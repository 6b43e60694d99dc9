"""Names of parameters, for messages."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rsam import geometry
from rsam.geometry import UnsupportedOperation

__all__ = ["Groups", "name_of", "named", "parameter_name"]

Groups = list[dict[str, Any]]


def parameter_name(group: dict[str, Any], group_index: int, index: int) -> str:
    """Name a parameter: its own name if the optimizer was given names, else its place."""
    p = group["params"][index]
    names = group.get("param_names")
    name = repr(names[index]) if names else f"parameter {index} of group {group_index}"
    return f"{name} (shape {tuple(p.shape)}, {geometry.manifold_of(p).name})"


def name_of(groups: Groups, parameter: Tensor) -> str:
    """Name one of the parameters of an optimizer."""
    places = ((g, i) for g, group in enumerate(groups) for i, p in enumerate(group["params"]) if p is parameter)
    g, i = next(places)
    return parameter_name(groups[g], g, i)


def named(error: UnsupportedOperation, groups: Groups, parameters: list[Tensor]) -> UnsupportedOperation:
    """Name the parameter of an error that knows its place in a list of them."""
    return UnsupportedOperation(f"{name_of(groups, parameters[error.index or 0])}: {error}")
