"""Name parameters, and refuse what is none, no integer, or of a precision that derivatives vanish in."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["as_integer", "check_dtypes", "check_is_iterable", "check_precision", "named_leaves"]


def as_integer(name: str, value: Any, least: int | None = None) -> int:
    """Return an integer of Python, NumPy or a tensor as one of Python; booleans are none.

    Raises
    ------
    ValueError
        For anything else, also 2.0, and for an integer below ``least``; names the argument.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def check_is_iterable(params: Any) -> None:
    """Refuse what is no iterable of parameters, such as a model or a single tensor.

    Raises
    ------
    ValueError
        Naming the argument, what it must be, and what it is.
    """
    is_module = isinstance(params, nn.Module) and not isinstance(params, nn.ParameterList)
    if is_module or isinstance(params, Tensor | Mapping | str) or not isinstance(params, Iterable):
        got = "a tensor" if isinstance(params, Tensor) else type(params).__name__
        raise ValueError(f"params must be an iterable of tensors, such as model.parameters(), got {got}")


def check_precision(params: Sequence[Tensor], describe: Callable[[int], str]) -> None:
    """Refuse float16, of the parameters or of an autocast around this call; ``describe`` names a parameter.

    A loss that is scaled up for its gradients does not help: derivatives are taken of the loss as it is. Of those that
    are too large the check of numbers that are not finite tells.

    Raises
    ------
    ValueError
        Naming a parameter in float16, or the autocast, and what to use instead.
    """
    kind = params[0].device.type
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
        where, instead = "the autocast around this call", "use bfloat16 or no autocast"
    elif torch.float16 in (dtypes := [p.dtype for p in params]):
        where, instead = describe(dtypes.index(torch.float16)), "convert the model to bfloat16 or float32"
    else:
        return
    raise ValueError(_vanish(where, instead))


def check_dtypes(dtypes: Collection[torch.dtype]) -> None:
    """Refuse a loss some of whose graph is in float16, for example by an autocast within model or closure."""
    if torch.float16 in dtypes:
        raise ValueError(_vanish("a part of the loss", "use an autocast to bfloat16 or none, within model and loss"))


def _vanish(where: str, instead: str) -> str:
    return f"derivatives below 6e-8 vanish without an error in the float16 of {where}; {instead}"


def named_leaves(params: Iterable[Tensor] | Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Return parameters with their names, or numbers, for messages, each once; refuse what is no leaf tensor.

    Raises
    ------
    ValueError
        Naming the parameter; for an empty list, too.
    """
    check_is_iterable(params)
    named: dict[int, tuple[str, Tensor]] = {}
    for i, entry in enumerate(params):
        name, p = (repr(entry[0]), entry[1]) if isinstance(entry, tuple) else (str(i), entry)
        if not isinstance(p, Tensor) or not p.is_leaf:
            raise ValueError(f"parameter {name} must be a leaf tensor, got {type(p).__name__}")
        named.setdefault(id(p), (name, p))
    if not named:
        raise ValueError("params is empty")
    return list(named.values())
