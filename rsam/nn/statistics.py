"""Update batch statistics once per step of RSAM."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from rsam.evaluation.random_state import RandomState, random_state, set_random_state
from rsam.nn.selection import check_module
from rsam.optim import RSAM
from rsam.optim.ascent import Snapshot

__all__ = ["update_statistics_once"]


class _StatisticsOnce:
    """Pass hook that restores buffers after a pass that is not kept, and gives both passes the same random state."""

    def __init__(self, model: nn.Module, kinds: type[nn.Module], rng: bool) -> None:
        self._model, self._kinds = model, kinds
        self._rng = rng
        self._snapshot = Snapshot()
        self._undo = False
        self._before: RandomState | None = None
        self._after: RandomState | None = None

    def _buffers(self) -> list[Tensor]:
        # looked up each time, since a module that moves to another device gets new buffers, and layers are replaced
        modules = (m for m in self._model.modules() if isinstance(m, self._kinds))
        return [b for m in modules for b in m._buffers.values() if b is not None]

    def before_pass(self, kept: bool) -> None:
        self._put_back()
        if self._rng:
            if kept:
                self._before = random_state()
            elif self._before is not None:
                self._after = random_state()
                set_random_state(self._before)
            else:
                raise RuntimeError(
                    "update_statistics_once(rng=True) needs step(closure) with one batch for both passes: it cannot "
                    "know the random state before first_step(), and has none to share between different batches"
                )
        if not kept:
            with torch.no_grad():
                self._snapshot.take(self._buffers())
            self._undo = True

    def _put_back(self) -> None:
        if self._undo and (buffers := self._buffers()):
            with torch.no_grad():
                torch._foreach_copy_(buffers, self._snapshot.copies)
        self._undo = False

    def after_passes(self) -> None:
        self._put_back()
        if self._after is not None:
            set_random_state(self._after)
        self._before = self._after = None


def update_statistics_once(
    optimizer: RSAM, model: nn.Module, *, buffers: Literal["batch_norm", "all"] = "batch_norm", rng: bool = False
) -> None:
    """Let only one pass of each RSAM step update running statistics of batch norm.

    Otherwise the statistics average over the weights and the perturbed weights. The pass that updates is the first, at
    the weights. It is the second if the first sees only a part of the batch (``step(closure, ascent_closure)``), and
    the only one in a step without an ascent, or with one along the momentum.

    Parameters
    ----------
    optimizer : rsam.RSAM
        The optimizer that makes the passes.
    model : torch.nn.Module
        The model with the buffers.
    buffers : {"batch_norm", "all"}
        Buffers to restore: those of batch-norm layers, or every buffer of the model.
    rng : bool
        Give the second pass the random numbers of the first, so that dropout masks are equal. This needs
        ``step(closure)``, and the same batch in both passes.

    Raises
    ------
    TypeError
        If ``optimizer`` is no :class:`rsam.RSAM`, or ``model`` no :class:`torch.nn.Module`.
    ValueError
        If ``buffers`` is neither of these.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    >>> opt = rsam.RSAM(model.parameters(), lr=0.1)
    >>> rsam.nn.update_statistics_once(opt, model)
    """
    if not isinstance(optimizer, RSAM):
        raise TypeError(
            f"update_statistics_once takes an rsam.RSAM, got {type(optimizer).__name__}; of a wrapper of accelerate's "
            "pass the attribute optimizer"
        )
    check_module(model)
    if buffers not in ("batch_norm", "all"):
        raise ValueError(f'buffers must be "batch_norm" or "all", got {buffers!r}')
    kinds = nn.Module if buffers == "all" else nn.modules.batchnorm._NormBase
    optimizer.register_pass_hook(_StatisticsOnce(model, kinds, rng))
