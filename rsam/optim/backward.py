"""Explain why a closure left no new gradients, and how to step without a closure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from torch import Tensor

from rsam.optim.callers import is_called_from_framework

__all__ = ["NO_BACKWARD", "SEE_GUIDE", "depends_on", "keeps_graph", "refuse_without_closure", "why_left"]

SEE_GUIDE = "see the guide, Training loops (docs/guide/loops.md)"
_UNMOVED = "the weights are as before the step"
NO_BACKWARD = (
    f"the closure has to call backward: it computes a loss but leaves no new gradient; {_UNMOVED}. Call "
    f"optimizer.zero_grad() and then loss.backward() in the closure; {SEE_GUIDE}"
)
_LEFT = "the closure leaves gradients that were there before step(closure) as they were"
_WRAPPED = (
    "a wrapper whose step() brings a closure that computes nothing, as Lightning's in manual optimization, needs "
    "first_step() before; "
)
_HALVES = "call first_step() after backward(), and second_step() after another forward pass and backward()"
_HALVES_OF_ONE_PASS = (
    "call first_step() before the forward pass, and step() after backward(), as this direction of ascent needs no "
    "gradient"
)


def refuse_without_closure(needs_gradient: bool) -> NoReturn:
    """Refuse a step without a closure, and say how to step in halves.

    Raises
    ------
    RuntimeError
        Always; names :mod:`rsam.integrations` in a framework's loop.
    """
    halves = _HALVES if needs_gradient else _HALVES_OF_ONE_PASS
    see = "see rsam.integrations, such as RSAMTrainer for transformers" if is_called_from_framework() else SEE_GUIDE
    raise RuntimeError(
        "RSAM.step needs a closure that zeroes gradients, computes the loss, calls backward and returns the loss; or "
        f"{halves}; {see}"
    )


def why_left(loss: Any, params: Iterable[Tensor]) -> str:
    """Say why a closure that returned ``loss`` leaves gradients from before as they were, and what to do."""
    if depends_on(loss, params):
        return NO_BACKWARD
    if isinstance(loss, Tensor) and not loss.requires_grad:
        return (
            f"{_LEFT}, and its loss has no graph, as under torch.no_grad(); {_UNMOVED}. Compute the loss with "
            f"gradients enabled, and call optimizer.zero_grad() and then loss.backward() in the closure; {SEE_GUIDE}"
        )
    wrapped = _WRAPPED if loss is None else ""
    return f"{_LEFT}; {_UNMOVED}. Call optimizer.zero_grad() in the closure, before backward(); {wrapped}{SEE_GUIDE}"


def depends_on(loss: Any, params: Iterable[Tensor]) -> bool:
    """Tell whether a loss has a graph that leads to a parameter; ``backward`` does not remove its nodes."""
    wanted = {id(p) for p in params}
    # a leaf, where gradients are accumulated, has a variable
    return any(id(getattr(node, "variable", None)) in wanted for node in _nodes(loss))


def keeps_graph(loss: Any) -> bool:
    """Tell whether a loss has a graph with the tensors that its derivative needs, which ``backward`` frees."""
    for node in _nodes(loss):
        for name in dir(node):
            if not name.startswith(("_saved_", "saved_tensors")):
                continue
            try:
                saved = getattr(node, name)
            except RuntimeError:  # freed
                return False
            if any(isinstance(part, Tensor) for part in (saved if isinstance(saved, tuple) else (saved,))):
                return True
    return False


def _nodes(loss: Any) -> Iterator[Any]:
    """Go through the graph of a loss; there is none of what is no tensor."""
    seen: set[Any] = set()
    stack: list[Any] = [loss.grad_fn] if isinstance(loss, Tensor) else []
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack += [upstream for upstream, _ in node.next_functions]
