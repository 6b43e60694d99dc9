"""Evaluate a model without side effects, or at other weights than its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_pre_hooks
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _OrthMaps, _Orthogonal
from torch.nn.utils.stateless import _functional_call

from rsam.evaluation.random_state import random_state, set_random_state

__all__ = ["Buffers", "at_points", "isolated", "recording"]

#: Buffers by module and name.
Buffers = dict[nn.Module, dict[str, Tensor]]
# Attribute of clones of buffers that torch.func.functional_call lends, which takes them out of the module itself.
_LENT = "_rsam_is_lent"


@contextmanager
def isolated(*, strict: bool = True, start: Buffers | None = None) -> Iterator[None]:
    """Keep buffers and the global random states as they are through this thread's evaluations of modules.

    A module that is called within this context works on clones of its buffers and of those of its submodules. At the
    end, also after an exception, the module gets its original buffers back, which are never written to. So a graph that
    was built before and needs them can still be differentiated, and a graph built inside keeps the clones that it
    needs. Contexts may be nested. The random states are those of torch, Python and NumPy.

    Parametrized weights are computed anew, also within :func:`torch.nn.utils.parametrize.cached`, whose cache is as
    before at the end: it would hold those of other weights, or those without a graph.

    The context does not protect weights, ``.grad`` and Python attributes, buffers that
    :func:`torch.func.functional_call` lends to a module after a direct call of it, and buffers of a module compiled in
    place (``model.compile()``; ``torch.compile(model)`` is fine). Embeddings with ``max_norm``, which write to their
    weights when they run, are refused; the function :func:`torch.nn.functional.embedding` is not noticed.

    Parameters
    ----------
    strict : bool
        Whether to refuse layers that write to their weights, or do not follow where :func:`at_points` moved them.
    start : dict, optional
        Values of buffers to start from, as :func:`recording` yields them; by default the present ones.

    Raises
    ------
    ValueError
        In the call of a module with such a layer; names the layer, or its parameter.

    Examples
    --------
    >>> import torch, rsam.evaluation
    >>> norm = torch.nn.BatchNorm1d(2)
    >>> with rsam.evaluation.isolated():
    ...     _ = norm(torch.randn(8, 2))
    >>> norm.running_mean, norm.num_batches_tracked
    (tensor([0., 0.]), tensor(0))
    """
    originals: Buffers = {}
    # original, which keeps its identity, and clone, by that identity, so that tied buffers stay tied
    clones: dict[int, tuple[Tensor, Tensor]] = {}
    start = start or {}

    def visit(part: nn.Module, buffers: dict[str, Tensor], lent: set[int]) -> None:
        own, values = originals.setdefault(part, {}), start.get(part, {})
        for name, b in buffers.items():  # one by one, since a scripted module's buffers have no method `update`
            if hasattr(b, _LENT):
                continue
            if id(b) not in clones:
                clones[id(b)] = b, values.get(name, b).clone()
            part._buffers[name] = clone = clones[id(b)][1]
            if id(b) in lent:
                setattr(clone, _LENT, True)
            else:
                vars(clone).pop(_LENT, None)
                own.setdefault(name, b)

    state = random_state()
    cache, parametrize._cache = parametrize._cache, {}
    try:
        with _before_first_calls(visit, _check_layers if strict else None):
            yield
    finally:
        for part, buffers in originals.items():
            for name, b in buffers.items():
                part._buffers[name] = b
        for _, clone in clones.values():  # which the dictionary of a functional call may hold now
            vars(clone).pop(_LENT, None)
        parametrize._cache = cache
        set_random_state(state)


@contextmanager
def recording() -> Iterator[Buffers]:
    """Record the buffers of all modules that this thread calls within this context, as they were before the call.

    A later evaluation can then start from them: :func:`isolated` takes what this context yields. Some layers compute
    with buffers that they have just updated, such as spectral norm in train mode.
    """
    recorded: Buffers = {}

    def visit(part: nn.Module, buffers: dict[str, Tensor], lent: set[int]) -> None:
        if part not in recorded:
            recorded[part] = {name: b.clone() for name, b in buffers.items()}

    with _before_first_calls(visit):
        yield recorded


@contextmanager
def _before_first_calls(
    visit: Callable[[nn.Module, dict[str, Tensor], set[int]], None], check: Callable[[nn.Module], None] | None = None
) -> Iterator[None]:
    """Visit each module and its buffers before this thread first calls it, or one that it is a part of.

    Modules are visited again and again while buffers are lent to them, of which ``visit`` gets the identities: they
    have their own buffers again when they are called directly.
    """
    met: set[nn.Module] = set()

    def look(module: nn.Module) -> None:
        if threading.get_ident() != thread or module in met:
            return
        if check is not None:
            check(module)
        lent = _lent()
        for part in module.modules():  # all at once: a forward may use buffers of a child that it never calls
            if part not in met:
                buffers = {name: b for name, b in part._buffers.items() if b is not None and not is_lazy(b)}
                if not any(id(b) in lent or hasattr(b, _LENT) for b in buffers.values()):
                    met.add(part)
                visit(part, buffers, lent)

    thread = threading.get_ident()  # hooks are called in all threads
    with _lock:
        _open.append(look)
        _global_forward_pre_hooks[_KEY] = _look_all
    try:
        yield
    finally:
        with _lock:
            _open.remove(look)
            if not _open:
                del _global_forward_pre_hooks[_KEY]


def _lent() -> set[int]:
    """Return the identities of the tensors that the functional calls on the stack lend to modules."""
    found: set[int] = set()
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _functional_call.__code__:
            found.update(map(id, frame.f_locals["parameters_and_buffers"].values()))
        frame = frame.f_back
    return found


# One hook for all contexts, under one key: compiled functions are compiled anew for another hook, or another key, as
# torch's register_module_forward_pre_hook takes for each.
_KEY: Any = "rsam.evaluation.isolation"
_open: list[Callable[[nn.Module], None]] = []
_lock = threading.Lock()


def _look_all(module: nn.Module, args: Any) -> None:
    # for a compiled module this hook runs outside, once for all its parts; inside it could not be traced
    if not torch.compiler.is_compiling():
        for look in tuple(_open):
            look(module)


def _check_layers(module: nn.Module) -> None:
    for name, part in module.named_modules():
        # undone at the end, a measurement would still be one at other weights, of which nothing here knows
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None:
            raise ValueError(
                f"{type(part).__name__}{f' {name!r}' if name else ''} rescales rows of its weights when it runs "
                f"(max_norm={part.max_norm}), so that evaluations would change them; set its max_norm = None meanwhile"
            )
        if _own and isinstance(part, parametrize.ParametrizationList) and _breaks(part):
            raise ValueError(
                f"{name + '.original' if name else 'original'!r} cannot be moved at random, nor between these weights: "
                "torch's orthogonal() rounds its diagonal to signs; take orthogonal_map='matrix_exp' or 'cayley', or "
                "leave it out of params"
            )


# Own values of the parameters that are elsewhere within :func:`at_points`, by identity.
_own: dict[int, Tensor] = {}


def _breaks(part: parametrize.ParametrizationList) -> bool:
    """Tell whether Householder reflections are moved along their diagonal, in which they are not continuous.

    Gradients have no component there, and may be followed.
    """
    if not any(isinstance(p, _Orthogonal) and p.orthogonal_map is _OrthMaps.householder for p in part):
        return False
    here: Any = getattr(part, "original", None)
    own = _own.get(id(here))
    return own is not None and not torch.equal(here.diagonal(0, -2, -1), own.diagonal(0, -2, -1))


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
    first = {id(p): old for p, old in zip(params, olds, strict=True) if id(p) not in _own}
    # autocast caches its casts by the parameter's identity, and would not see the new values
    torch.clear_autocast_cache()
    try:
        _own.update(first)
        for p, x in zip(params, points, strict=True):
            p.data = x.detach()
        yield
    finally:
        for key in first:
            del _own[key]
        for p, old in zip(params, olds, strict=True):
            p.data = old
        torch.clear_autocast_cache()
