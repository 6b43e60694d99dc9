"""Compare manifolds: objects of one class with the same constants are equal."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from enum import Enum
from types import MethodType
from typing import Any

import geoopt
import torch
from torch import Tensor

__all__ = ["Constants", "key_of"]

_OF_EVERY_MODULE = vars(torch.nn.Module()).keys()


def key_of(manifold: geoopt.Manifold) -> Hashable:
    """Return a key that is equal for equal manifolds, which geoopt compares by identity.

    Constants such as a curvature are compared by value, read here once. A trained constant is equal to itself only, and
    so is a manifold of a class outside geoopt and rsam, whose state is unknown.
    """
    parts: list[Hashable] = []
    for name, module in manifold.named_modules():
        attributes = [(k, _frozen(v)) for k, v in vars(module).items() if k not in _OF_EVERY_MODULE]
        parts.append((name, type(module), None if _is_known(type(module)) else id(module), tuple(attributes)))
    parts += [(name, _number(tensor)) for name, tensor in [*manifold.named_parameters(), *manifold.named_buffers()]]
    return tuple(parts)


def _is_known(entry: Any) -> bool:
    known: bool = entry.__module__.startswith(("geoopt.", "rsam.", "torch.", "hypll."))
    return known


def _frozen(value: Any) -> Hashable:
    """Return an attribute in a form that compares by value, or by identity if it may be mutable."""
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    if isinstance(value, slice):
        return (value.start, value.stop, value.step)
    if isinstance(value, Tensor):
        return id(value)
    if isinstance(value, MethodType) and _is_known(value):  # geoopt's Scaled has such attributes
        return value.__qualname__
    if type(value).__module__.startswith("geoopt.") and not isinstance(value, Enum):  # metrics of Siegel spaces
        return (type(value), _frozen(sorted(vars(value).items())))
    try:
        hash(value)
    except TypeError:
        return id(value)
    key: Hashable = value
    return key


def _number(tensor: Tensor) -> Hashable:
    if tensor.requires_grad or tensor.is_meta:
        return id(tensor)
    numbers = tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    return (tensor.shape, tensor.dtype, tensor.device, numbers)


class Constants:
    """Record of the constants of manifolds, to notice changes.

    Parameters
    ----------
    manifolds : iterable of geoopt.Manifold
        Manifolds whose constants are recorded.
    """

    def __init__(self, manifolds: Iterable[geoopt.Manifold]) -> None:
        self._seen = [
            (holder, name, tensor, tensor._version, tensor.data_ptr(), tensor.requires_grad)
            for manifold in manifolds
            for holder, name, tensor in _constants(manifold)
        ]

    def changed(self) -> bool:
        """Tell, without reading values, whether a constant was replaced or written to, except through ``.data``."""
        for holder, name, tensor, version, address, trained in self._seen:
            if holder.get(name) is not tensor or tensor._version != version:
                return True
            if tensor.requires_grad is not trained or tensor.data_ptr() != address:
                return True
        return False


def _constants(manifold: geoopt.Manifold) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    for module in manifold.modules():
        for holder in (module._parameters, module._buffers):
            yield from ((holder, name, tensor) for name, tensor in holder.items() if tensor is not None)
