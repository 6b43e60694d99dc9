"""Name the parameters of an optimizer's groups, build their product manifold, and check that they can be stepped."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from rsam import geometry
from rsam.constrained import refuse_lost
from rsam.geometry.sharded import shards_of

__all__ = ["Groups", "check_parameters", "names_in_group", "parameter_names", "refuse_state_of_others", "space_of"]

Groups = list[dict[str, Any]]


def parameter_names(groups: Groups) -> list[str]:
    """Name the parameters of an optimizer, by the names that it was given or else by their positions."""
    names = []
    for g, group in enumerate(groups):
        own = group.get("param_names")
        names += [repr(own[i]) if own else f"parameter {i} of group {g}" for i in range(len(group["params"]))]
    return names


def names_in_group(groups: Groups, index: int) -> list[str]:
    """Name the parameters of one group, as :func:`parameter_names` does."""
    first = sum(len(group["params"]) for group in groups[:index])
    return parameter_names(groups)[first : first + len(groups[index]["params"])]


def space_of(groups: Groups, known: geometry.Product | None = None, live: bool = False) -> geometry.Product:
    """Return the product manifold of the parameters of all groups; update and return ``known`` if it is still right.

    With ``live``, only parameters that an optimizer may write to are included. Parameters of different groups are
    not stacked.
    """
    params = [p for group in groups for p in group["params"]]
    labels = [g for g, group in enumerate(groups) for _ in group["params"]]
    if live and not all(p.requires_grad or p.grad is not None for p in params):
        pairs = [(p, g) for p, g in zip(params, labels, strict=True) if p.requires_grad or p.grad is not None]
        params, labels = [p for p, _ in pairs], [g for _, g in pairs]
    if known is not None and known.labels == labels and all(map(operator.is_, known.params, params)):
        known.update(stacks_are_checked=True)
        return known
    names = dict(zip((id(p) for group in groups for p in group["params"]), parameter_names(groups), strict=True))
    return geometry.Product(params, names=[names[id(p)] for p in params], apart=labels)


def check_parameters(groups: Groups, index: int) -> None:
    """Refuse parameters of a group without a geometry or that lost their manifold; warn of those off their manifold.

    Raises
    ------
    TypeError, ValueError, UnsupportedOperation
        As :class:`rsam.geometry.Product` does.
    NotFinite
        For a point on a manifold that is not finite.
    """
    params = groups[index]["params"]
    refuse_lost(params)
    geometry.warn_off_manifold(geometry.Product(params, names=names_in_group(groups, index)), stacklevel=8)


def refuse_state_of_others(groups: Groups, saved: dict[str, Any], entries: Iterable[str]) -> None:
    """Refuse a saved state whose entries have other shapes than the plain parameters that they belong to.

    Those of points on manifolds are checked in the next step, before anything is written.

    Raises
    ------
    ValueError
        Naming the first such parameter.
    """
    params = [p for group in groups for p in group["params"]]
    keys = [key for group in saved["param_groups"] for key in group["params"]]
    for name, p, key in zip(parameter_names(groups), params, keys, strict=False):  # torch compares the numbers
        if not geometry.is_plain(p) or shards_of(p) is not None:
            continue
        for entry in entries:
            value = saved["state"].get(key, {}).get(entry)
            if isinstance(value, Tensor) and value.shape != p.shape:
                raise ValueError(
                    f"{entry} in the saved state of {name} has shape {tuple(value.shape)} instead of {tuple(p.shape)}: "
                    "the state is that of another model, or of parameters in another order"
                )
