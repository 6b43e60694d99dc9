"""Remember which weights :func:`rsam.nn.constrain` put on manifolds, to refuse those that lost their manifold."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

import geoopt
from torch import Tensor, nn

__all__ = ["forget", "forget_weights", "no_parameter", "refuse_lost", "remember"]

#: Full name and manifold by attribute.
Constraints = dict[str, tuple[str, geoopt.Manifold]]

_CONSTRAINTS: WeakKeyDictionary[nn.Module, Constraints] = WeakKeyDictionary()


def remember(owner: nn.Module, constraints: Constraints) -> None:
    """Remember which attributes of a module are on which manifolds."""
    _CONSTRAINTS[owner] = constraints


def forget(owner: nn.Module) -> None:
    """Forget a module that is not constrained any more."""
    _CONSTRAINTS.pop(owner, None)


def forget_weights(weights: Iterable[Tensor]) -> None:
    """Forget weights that are not constrained any more in all modules that share them."""
    ids = {id(w) for w in weights}
    for owner, constraints in list(_CONSTRAINTS.items()):
        held = vars(owner).get("_parameters", {})  # a copy whose making failed has none
        for attribute in [a for a in constraints if id(held.get(a)) in ids]:
            del constraints[attribute]


def no_parameter(name: str, manifold: geoopt.Manifold) -> str:
    """Say that a constrained weight is no parameter any more but computed, and what to do."""
    return (
        f"{name!r} was put on {manifold} by rsam.nn.constrain, and is no parameter any more: it was parametrized, "
        "normalised or pruned since. Undo that, or call rsam.nn.unconstrain"
    )


def refuse_lost(params: Iterable[Tensor]) -> None:
    """Refuse parameters that were put on a manifold but are plain now.

    Raises
    ------
    ValueError
        Naming the parameter and what may have happened.
    """
    ids = {id(p) for p in params}
    for owner, constraints in list(_CONSTRAINTS.items()):
        if "_parameters" not in vars(owner):
            continue  # a copy whose making failed
        for attribute, (name, manifold) in constraints.items():
            held = owner._parameters.get(attribute)
            if held is None and not ids.isdisjoint(map(id, owner.parameters())):
                raise ValueError(no_parameter(name, manifold))
            if held is not None and id(held) in ids and not held.is_meta and not hasattr(held, "manifold"):
                raise ValueError(
                    f"{name!r} lost {manifold}, as sharding and swapped parameters make it; call fully_shard within "
                    "rsam.optim.keep_manifolds(model), or rsam.nn.constrain again"
                )
