"""Read batches: pairs of inputs and targets, or mappings of a model's keyword arguments."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

__all__ = ["Data", "as_batches", "as_pair", "examples_of", "move", "pieces"]

#: One batch, ``(inputs, targets)`` or a mapping, or an iterable of batches that can be iterated over repeatedly.
Data = tuple[Any, Any] | Mapping[str, Any] | Iterable[Any]


def as_batches(data: Data) -> Iterable[Any]:
    """Return data as an iterable of batches, also if they are a single batch.

    Raises
    ------
    ValueError
        For an iterator, which the first pass exhausts, and for a tuple of two pairs, which is ambiguous.
    """
    if isinstance(data, Mapping):
        return [data]
    if isinstance(data, Iterator):  # testing `iter(data) is data` would start a loader, which draws a random number
        raise ValueError("data can be gone through only once; pass a list or a loader instead of an iterator")
    if isinstance(data, tuple) and len(data) == 2:
        if all(map(_may_be_batch, data)):
            raise ValueError(
                "data may be one batch (inputs, targets) or two batches: pass a list, [(inputs, targets)] or "
                "[batch, batch]"
            )
        return [data]
    if isinstance(data, list) and len(data) == 2 and any(isinstance(part, Tensor) for part in data):
        return [data]
    return data


def _may_be_batch(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, tuple | list) and len(value) == 2)


def as_pair(batch: Any) -> tuple[Any, Any]:
    """Return inputs and targets of a batch; for a mapping, both are the mapping itself.

    Raises
    ------
    ValueError
        If it is neither a pair nor a mapping.
    """
    if isinstance(batch, Mapping):
        return batch, batch
    if not (isinstance(batch, tuple | list) and len(batch) == 2):  # a tensor would unpack to nonsense
        raise ValueError(f"data must yield pairs (inputs, targets) or mappings, not {type(batch).__name__}")
    return batch[0], batch[1]


def move(value: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device; the original stays where it is.

    Tensors that were made in inference mode, which no graph may keep, are cloned.
    """
    return _map_tensors(lambda t: (t.clone() if t.is_inference() else t).to(device), value)


def examples_of(value: Any) -> int | None:
    """Return the number of examples in a batch or in a part of one, None if it has no tensor.

    It is the length of the first tensor, but that of a list of mappings, as detectors take for targets, one per image.
    """
    if isinstance(value, list | tuple) and value and all(isinstance(part, Mapping) for part in value):
        return len(value)
    return next((t.shape[0] for t in _leaves(value) if isinstance(t, Tensor) and t.dim()), None)


def pieces(batch: Any, size: int) -> Iterator[Any]:
    """Cut a batch into batches of ``size`` examples; the last one may be smaller.

    Raises
    ------
    ValueError
        If something in it is no tensor, or tensors have different lengths.
    """
    leaves = list(_leaves(as_pair(batch)))
    if not all(isinstance(t, Tensor) and t.dim() for t in leaves):
        raise ValueError("micro_batch splits inputs and targets, which must be tensors or hold nothing but tensors")
    lengths = {t.shape[0] for t in leaves}
    if len(lengths) != 1:
        raise ValueError(f"micro_batch splits tensors of equal length, but a batch has the lengths {sorted(lengths)}")
    for start in range(0, lengths.pop(), size):
        yield _map_tensors(operator.itemgetter(slice(start, start + size)), batch)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping | tuple | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(part)
    elif value is not None:
        yield value


def _map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to all tensors in nested mappings, tuples and lists, and keep the types of these."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        items = {k: _map_tensors(function, v) for k, v in value.items()}
        if not isinstance(value, MutableMapping):
            return items
        copied = copy.copy(value)  # the items of a tokenizer's batch are its attributes too
        copied.update(items)
        return copied
    if isinstance(value, PackedSequence):  # whose batch sizes stay on the CPU
        names = (name for name in value._fields if name != "batch_sizes")
        return value._replace(**{name: _map_tensors(function, getattr(value, name)) for name in names})
    if isinstance(value, tuple | list):
        parts = [_map_tensors(function, v) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
