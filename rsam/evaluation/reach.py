"""Find what a loss depends on, and record which parameters a pass over the data does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Reach", "graph_of"]


class Reach:
    """Record of the parameters that any batch depends on; a single batch may miss an expert or a head.

    Parameters
    ----------
    count : int
        Number of parameters.
    """

    def __init__(self, count: int) -> None:
        self._missed = set(range(count))
        self._looked = False
        self._without_graph = ""  # says what came without a graph, as long as no batch had one

    def note(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the parameters that a batch depends on: those whose gradient is not None."""
        self._missed -= {i for i, g in enumerate(gradients) if g is not None}
        self._looked, self._without_graph = True, ""

    def note_without_graph(self, what: str) -> None:
        """Add a batch whose loss or outputs have no graph; ``what`` says which."""
        if not self._looked:
            self._looked, self._without_graph = True, what

    def check(self, describe: Callable[[int], str]) -> None:
        """Raise ValueError if no batch depends on a parameter; ``describe`` names it."""
        if not self._looked or not self._missed:
            return
        if self._without_graph:
            raise ValueError(
                f"{self._without_graph} without a graph; compute it from the parameters, outside no_grad and detach"
            )
        raise ValueError(f"params: the loss does not depend on {describe(min(self._missed))}; leave it out")


class _Graph(NamedTuple):
    """What :func:`graph_of` finds."""

    leaves: list[Tensor]
    early: set[int]
    shares: bool
    dtypes: set[torch.dtype]
    convolves: bool


def graph_of(tensor: Tensor, since: int = 0) -> _Graph:
    """Find every tensor that ``tensor.backward()`` would accumulate a gradient in.

    Return also the identities of those that a node made before ``since`` uses, and whether there is such a node, the
    dtypes of all results, which show an autocast that the closure turned on (not in torch 2.4), and whether there are
    convolutions or recurrent kernels of cuDNN, or a compiled function that may have some.
    """
    if tensor.grad_fn is None:
        return _Graph([tensor], set(), False, set(), False)
    leaves: dict[int, Tensor] = {}
    early: set[int] = set()
    seen: set[Any] = {tensor.grad_fn}
    stack: list[Any] = [tensor.grad_fn]
    shares = False
    dtypes: set[torch.dtype] = set()
    convolves = False
    while stack:
        node = stack.pop()
        convolves = convolves or type(node).__name__.startswith(("Conv", "Cudnn", "CompiledFunction"))
        old = node._sequence_nr() < since
        shares = shares or old
        dtypes |= {data.dtype for data in getattr(node, "_input_metadata", ())}
        for upstream, _ in node.next_functions:
            if type(upstream).__name__ == "AccumulateGrad":
                leaves[id(upstream.variable)] = upstream.variable
                early |= {id(upstream.variable)} if old else set()
            elif upstream is not None and upstream not in seen:
                seen.add(upstream)
                stack.append(upstream)
    return _Graph(list(leaves.values()), early, shares, dtypes, convolves)
