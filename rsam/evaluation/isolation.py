"""Evaluate a model without side effects, or at other weights than its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from rsam.evaluation.random_state import random_state, set_random_state

__all__ = ["at_points", "isolated"]


@contextmanager
def isolated(*, strict: bool = True) -> Iterator[None]:
    """Keep buffers and the global random state as they are through this thread's evaluations of modules.

    A module that is called within this context works on clones of its buffers and of those of its submodules. At the
    end, also after an exception, the module gets its original buffers back, which are never written to. So a graph that
    was built before and needs them can still be differentiated, and a graph built inside keeps the clones that it
    needs. Contexts may be nested.

    The context does not protect weights, ``.grad`` and Python attributes, buffers that
    :func:`torch.func.functional_call` lends to a module, and buffers of a module compiled in place
    (``model.compile()``; ``torch.compile(model)`` is fine). Embeddings with ``max_norm``, which write to their weights
    when they run, are refused; the function :func:`torch.nn.functional.embedding` is not noticed.

    Parameters
    ----------
    strict : bool
        Whether to refuse layers that write to their weights.

    Raises
    ------
    ValueError
        In the call of a module with such a layer; names the layer.

    Examples
    --------
    >>> import torch, rsam.evaluation
    >>> norm = torch.nn.BatchNorm1d(2)
    >>> with rsam.evaluation.isolated():
    ...     _ = norm(torch.randn(8, 2))
    >>> norm.running_mean, norm.num_batches_tracked
    (tensor([0., 0.]), tensor(0))
    """
    originals: dict[nn.Module, dict[str, Tensor]] = {}
    clones: dict[int, Tensor] = {}  # by the original's identity, so that tied buffers stay tied

    def clone(buffer: Tensor) -> Tensor:
        if id(buffer) not in clones:
            clones[id(buffer)] = buffer.clone()
        return clones[id(buffer)]

    def visit(module: nn.Module, args: Any) -> None:
        # for a compiled module this hook runs outside, once for all its parts; inside it could not be traced
        if torch.compiler.is_compiling() or threading.get_ident() != thread or module in originals:
            return
        if strict:
            _check_writes_no_weights(module)
        for part in module.modules():  # all at once: a forward may use buffers of a child that it never calls
            if part not in originals:
                buffers = {name: b for name, b in part._buffers.items() if b is not None and not is_lazy(b)}
                originals[part] = buffers
                for name, b in buffers.items():  # one by one, since a scripted module's buffers have no method `update`
                    part._buffers[name] = clone(b)

    thread = threading.get_ident()  # the hook is called in all threads
    state = random_state()
    handle = register_module_forward_pre_hook(visit)
    try:
        yield
    finally:
        handle.remove()
        for part, buffers in originals.items():
            for name, b in buffers.items():
                part._buffers[name] = b
        set_random_state(state)


def _check_writes_no_weights(module: nn.Module) -> None:
    # undone at the end, a measurement would still be one at other weights, of which nothing here knows
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None:
            raise ValueError(
                f"{type(part).__name__}{f' {name!r}' if name else ''} rescales rows of its weights when it runs "
                f"(max_norm={part.max_norm}), so that evaluations would change them; set its max_norm = None meanwhile"
            )


@contextmanager
def at_points(params: Sequence[Tensor], points: Sequence[Tensor]) -> Iterator[None]:
    """Give parameters the values of ``points`` within this context.

    Nothing is copied or written to: the parameters refer to the memory of ``points`` within the context, and get
    their own back at its end, also after an exception. So a graph that was built before can still be differentiated,
    which an in-place change would prevent.

    Parameters
    ----------
    params : sequence of Tensor
        Leaf tensors.
    points : sequence of Tensor
        One tensor per parameter, of its shape, dtype and device.

    Raises
    ------
    ValueError
        If a point differs from its parameter in shape, dtype or device, or the lists differ in length.

    Examples
    --------
    >>> import torch, rsam.evaluation
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> loss = weight.square().sum()
    >>> with rsam.evaluation.at_points([weight], [torch.zeros(2)]):
    ...     print(weight.square().sum().item())
    0.0
    >>> loss.backward()
    >>> weight.grad
    tensor([2., 2.])
    """
    for i, (p, x) in enumerate(zip(params, points, strict=True)):
        if (p.shape, p.dtype, p.device) != (x.shape, x.dtype, x.device):
            raise ValueError(
                f"point {i} has shape {tuple(x.shape)}, dtype {x.dtype} on {x.device}, but its parameter has "
                f"{tuple(p.shape)}, {p.dtype} on {p.device}"
            )
    olds = [p.data for p in params]
    # autocast caches its casts by the parameter's identity, and would not see the new values
    torch.clear_autocast_cache()
    try:
        for p, x in zip(params, points, strict=True):
            p.data = x.detach()
        yield
    finally:
        for p, old in zip(params, olds, strict=True):
            p.data = old
        torch.clear_autocast_cache()
