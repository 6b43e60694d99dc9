"""Refuse arguments that are no iterable of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["check_is_iterable"]


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
