"""Find layers that lack a higher derivative, before the backward pass that needs it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.checkpoint import CheckpointError

from rsam.errors import NoHigherDerivative
from rsam.evaluation.isolation import isolated

__all__ = ["check_graph", "explain"]

# torch's messages where an operation has no further derivative
_MESSAGES = re.compile(
    r"derivative for .* (is )?not implemented|marked with @once_differentiable|support \S+ order derivatives"
    r"|support double backward|not (twice|infinitely) differentiable|support higher order (gradients|derivatives)"
)
# operations that differentiable() replaces
_REPLACED = re.compile(
    r"(batch|instance|layer|weight)_norm|hardsigmoid|scaled_dot_product|efficient_attention|flash_att"
)
_REMEDY = "build the loss within rsam.losses.differentiable(), or pass a closure"
# Nodes whose further derivatives torch gets wrong without an error: order of the wrong derivative, and message.
_NODES = {
    r"WeightNormInterfaceBackward": (2, f"torch's fused weight_norm has a wrong second derivative; {_REMEDY}"),
    r"EmbeddingBagBackwardBackward": (2, "torch's embedding_bag has no second derivative"),
    r"CompiledFunctionBackwardBackward": (2, "what torch.compile made has no second derivative"),
    r"BatchNormBackwardBackward": (3, f"torch's batch_norm has no right third derivative; {_REMEDY}"),
    r"LayerNormBackwardBackward": (3, f"torch's layer_norm has a wrong third derivative; {_REMEDY}"),
}


def check_graph(value: Tensor, order: int) -> None:
    """Raise if a backward pass through a derivative is bound to fail, or to be silently wrong.

    Parameters
    ----------
    value : Tensor
        Computed from derivatives of a loss of order ``order - 1``, with a graph.
    order : int
        Order of the loss's derivative that ``value.backward()`` computes.

    Raises
    ------
    NoHigherDerivative
        Names the operation. Faults that the graph does not show are not found.

    Examples
    --------
    >>> import torch, rsam.evaluation
    >>> x = torch.ones(3, requires_grad=True)
    >>> loss = torch.nn.functional.hardsigmoid(x).square().sum()
    >>> (g,) = torch.autograd.grad(loss, x, create_graph=True)
    >>> rsam.evaluation.check_graph(g.sum(), order=2)
    Traceback (most recent call last):
    rsam.errors.NoHigherDerivative: derivative for aten::hardsigmoid_backward is not implemented; ...
    """
    seen: set[Any] = set()
    stack: list[Any] = [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack += [upstream for upstream, _ in node.next_functions]
        name = node.name()
        if name in ("torch::autograd::NotImplemented", "torch::autograd::Error"):
            raise NoHigherDerivative(_message_of(node))
        elif "BackwardBackward" in name or "WeightNorm" in name:
            for pattern, (fails, reason) in _NODES.items():
                # batch norm in eval mode is an affine map
                if order >= fails and re.match(r"\w*" + pattern, name) and getattr(node, "_saved_train", True):
                    raise NoHigherDerivative(reason)


def _message_of(node: Any) -> str:
    """Return the message of a node whose backward only raises."""
    for count in range(1, 100):
        try:
            node(*[None] * count)
        except TypeError:  # the node takes another number of arguments
            continue
        except RuntimeError as error:
            return _with_remedy(_said(error))
    return f"{node.name()} has no further derivative"


def _said(error: RuntimeError) -> str:
    """Return the message of an error, to be continued: without a full stop."""
    return str(error).rstrip().removesuffix(".")


def _with_remedy(message: str) -> str:
    return f"{message}; {_REMEDY}" if _REPLACED.search(message) else message


def explain(
    error: RuntimeError, evaluate: Callable[[], Any] | None = None, model: nn.Module | None = None, order: int = 2
) -> RuntimeError:
    """Find the module that made torch refuse a higher derivative.

    Parameters
    ----------
    error : RuntimeError
        The caught error.
    evaluate : callable, optional
        Builds the loss once more, within :func:`isolated`; each module that it calls is then differentiated alone.
    model : torch.nn.Module, optional
        Gives the modules their dotted names.
    order : int
        Order of the derivative that torch refused.

    Returns
    -------
    RuntimeError
        The error to raise: a :class:`NoHigherDerivative` that names the first innermost module that fails alone, or
        else the operation in torch's words; ``error`` itself if it has another cause.

    Examples
    --------
    >>> import torch, rsam.evaluation
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Hardsigmoid())
    >>> error = RuntimeError("derivative for aten::hardsigmoid_backward is not implemented")
    >>> print(rsam.evaluation.explain(error, lambda: model(torch.ones(1, 2)).sum(), model))
    Hardsigmoid '1' has no derivative of order 2 (derivative for aten::hardsigmoid_backward is not implemented)
    """
    if isinstance(error, CheckpointError):
        return NoHigherDerivative(
            "torch.utils.checkpoint computes layers anew in the backward pass, by functions of torch without a right "
            f"derivative of order {order}; turn checkpointing off"
        )
    if not isinstance(error, NoHigherDerivative) and not _MESSAGES.search(str(error)):
        return error
    culprit = None if evaluate is None else _first_failing(evaluate, order)
    if culprit is None:
        return error if isinstance(error, NoHigherDerivative) else NoHigherDerivative(_with_remedy(_said(error)))
    names = {m: name for name, m in model.named_modules()} if model is not None else {}
    name = f" {names[culprit]!r}" if names.get(culprit) else ""
    return NoHigherDerivative(f"{type(culprit).__name__}{name} has no derivative of order {order} ({_said(error)})")


def _first_failing(evaluate: Callable[[], Any], order: int) -> nn.Module | None:
    found: list[nn.Module] = []
    testing = False

    def look(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        # within the hook, which sees the autocast and function modes of the model; children end before their parents
        nonlocal testing
        if testing or found or torch.compiler.is_compiling() or isinstance(module, torch.fx.GraphModule):
            return
        testing = True
        try:
            if not _differentiates(module, args, order):
                found.append(module)
        finally:
            testing = False

    with isolated(strict=False), torch.enable_grad():  # what is refused is refused before
        handle = register_module_forward_hook(look)
        try:
            evaluate()
        finally:
            handle.remove()
    return found[0] if found else None


def _differentiates(module: nn.Module, args: tuple[Any, ...], order: int) -> bool:
    """Tell whether torch can differentiate a module alone so often, in its inputs and parameters."""
    leaves: list[Tensor] = [p for p in module.parameters() if p.requires_grad]

    def leaf(x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        leaves.append(x.detach().requires_grad_())
        return leaves[-1].clone()  # an in-place layer may not write to a leaf

    try:
        output = module.forward(*map(leaf, args))
        outputs = [y for y in (output if isinstance(output, tuple | list) else [output]) if isinstance(y, Tensor)]
        outputs = [y for y in outputs if y.requires_grad]
        value = sum((y.square().sum() for y in outputs), torch.zeros(()))  # squared, so that no derivative is constant
        for taken in range(order):
            if not value.requires_grad:
                return True
            if taken == order - 1:
                check_graph(value, order)
            gradients = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
            value = sum((g.square().sum() for g in gradients if g is not None), torch.zeros(()))
    except Exception as error:  # a module that cannot be called alone is not to blame
        return not (isinstance(error, NoHigherDerivative) or _MESSAGES.search(str(error)))
    return True
