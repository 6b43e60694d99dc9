"""Choose which statistics batch norm uses at weights that it has not been trained with."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_pre_hook

from rsam.curvature.landscape.solutions import Solution, named_tensors
from rsam.evaluation import at_points
from rsam.evaluation.random_state import seed_random_state
from rsam.evaluation.reduction import uncompiled_name
from rsam.evaluation.risk import Risk

__all__ = ["MODES", "BatchNorm", "StatisticsBetween", "may_keep_statistics", "normalizing"]

BatchNorm = Literal["eval", "batch", "recompute"]
MODES = ("eval", "batch", "recompute")


@contextmanager
def normalizing(risk: Risk, how: BatchNorm) -> Iterator[None]:
    """Have batch norm use the chosen statistics within this context, at the present weights.

    Parameters
    ----------
    risk : Risk
        Gives model and data; it is evaluated once for ``"recompute"``.
    how : {"eval", "batch", "recompute"}
        The running statistics as they are, those of each batch, or running statistics that are averaged anew over the
        batches (as :func:`torch.optim.swa_utils.update_bn` does).
    """
    if how != "recompute":
        with _layers(training=how == "batch"):
            yield
        return
    with risk.evaluating():  # its clones of the buffers hold the statistics until this context ends
        with _layers(training=True, anew=True), torch.no_grad():
            for _ in risk.outputs(order=1):
                pass
        seed_random_state()
        with _layers(training=False):
            yield


@contextmanager
def _layers(training: bool, anew: bool = False) -> Iterator[None]:
    """Set the mode of batch norm in all modules that this thread calls; if ``anew``, average its statistics anew."""
    met: dict[nn.Module, tuple[bool, Any]] = {}
    thread = threading.get_ident()  # the hook is called in all threads

    def visit(module: nn.Module, args: Any) -> None:
        if module in met or torch.compiler.is_compiling() or threading.get_ident() != thread:
            return
        for part in module.modules():  # all at once, as rsam.evaluation.isolated() clones their buffers
            if part in met:
                continue
            met[part] = part.training, getattr(part, "momentum", None)
            if isinstance(part, _BatchNorm):
                part.training = training
                if anew:
                    part.reset_running_stats()
                    part.momentum = None  # a plain average over the batches

    handle = register_module_forward_pre_hook(visit)
    try:
        yield
    finally:
        handle.remove()
        for part, (mode, momentum) in met.items():
            if isinstance(part, _BatchNorm):
                part.training, part.momentum = mode, momentum


def may_keep_statistics(model: nn.Module | None) -> bool:
    """Tell whether a model has running statistics of batch norm; one that is no module may have."""
    return model is None or any(isinstance(m, _BatchNorm) and m.track_running_stats for m in model.modules())


class StatisticsBetween:
    """Running statistics of batch norm between those of a model and those of another solution.

    Parameters
    ----------
    model : torch.nn.Module or None
        The model, whose layers have the same names in ``other``; None if there is no module to look for them in.
    other : torch.nn.Module, mapping or sequence of Tensor
        A sequence of weights has no statistics: those of the model then stay.

    Raises
    ------
    ValueError
        If ``other`` has statistics and the model is unknown, or ``other`` lacks those of a layer of it.
    """

    def __init__(self, model: nn.Module | None, other: Solution) -> None:
        self._buffers: list[Tensor] = []
        self._ends: list[Tensor] = []
        if not isinstance(other, nn.Module | Mapping):
            return
        tensors = named_tensors(other)
        if model is None:
            if any(name.endswith("running_var") for name in tensors):
                raise ValueError(
                    "other has running statistics, but model_func is no module in which to find the layers that they "
                    "are of; pass the module, or batch_norm='batch' or 'recompute'"
                )
            return
        for prefix, layer in model.named_modules():
            for name in ("running_mean", "running_var"):
                buffer = layer._buffers.get(name) if isinstance(layer, _BatchNorm) else None
                if buffer is None:
                    continue
                key = uncompiled_name(f"{prefix}.{name}".lstrip("."))
                if key not in tensors:
                    raise ValueError(f"other has no {key!r}; pass the whole state_dict(), with its buffers")
                self._buffers.append(buffer)
                self._ends.append(tensors[key].detach().to(buffer.device, buffer.dtype))

    @property
    def moves(self) -> bool:
        """Whether the statistics of the ends differ."""
        return not all(map(torch.equal, self._buffers, self._ends))

    def at(self, t: float) -> AbstractContextManager[None]:
        """Lend the model the statistics at a fraction of the way; before 0 and after 1 those of the ends."""
        t = min(max(t, 0.0), 1.0)
        return at_points(
            self._buffers, [torch.lerp(b, end, t) for b, end in zip(self._buffers, self._ends, strict=True)]
        )
