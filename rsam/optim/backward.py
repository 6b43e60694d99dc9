"""Tell whether a closure has forgotten to call ``backward``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

__all__ = ["NO_BACKWARD", "SEE_GUIDE", "depends_on"]

SEE_GUIDE = "see the guide, Training loops (docs/guide/loops.md)"
NO_BACKWARD = (
    "the closure has to call backward: it computes a loss but leaves no gradient; the weights are as before the step. "
    f"Call optimizer.zero_grad() and then loss.backward() in the closure; {SEE_GUIDE}"
)


def depends_on(loss: Any, params: Iterable[Tensor]) -> bool:
    """Tell whether a loss has a graph that leads to a parameter; ``backward`` leaves the way there as it is."""
    if not isinstance(loss, Tensor):
        return False
    wanted = {id(p) for p in params}
    seen: set[Any] = set()
    stack: list[Any] = [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if id(getattr(node, "variable", None)) in wanted:  # a leaf, where gradients are accumulated
            return True
        stack += [upstream for upstream, _ in node.next_functions]
    return False
