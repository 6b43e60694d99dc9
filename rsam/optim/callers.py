"""Refuse callers with whom a step would be wrong, although nothing that they pass shows it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["is_called_from_framework", "refuse_part_of_a_model", "refuse_skipped_closures"]

_ZERO = "torch.distributed.optim.zero_redundancy_optimizer"
_ACCELERATE = "accelerate.optimizer"
_FRAMEWORKS = {"accelerate", "lightning", "pytorch_lightning", "transformers"}


def _callers() -> Iterator[str]:
    """Yield the names of the modules on the stack."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        yield frame.f_globals.get("__name__", "")
        frame = frame.f_back


def is_called_from_framework() -> bool:
    """Tell whether a framework calls for which there is a module in :mod:`rsam.integrations`."""
    return any(name.partition(".")[0] in _FRAMEWORKS for name in _callers())


def refuse_part_of_a_model() -> None:
    """Refuse construction by ZeroRedundancyOptimizer, which passes the parameters of one process only.

    Raises
    ------
    ValueError
        Saying what to wrap instead.
    """
    if _ZERO in sys.modules and _ZERO in _callers():
        raise ValueError(
            "ZeroRedundancyOptimizer gives RSAM the parameters of one process only, and a norm over those; wrap "
            "the base optimizer: RSAM(params, partial(ZeroRedundancyOptimizer, optimizer_class=...), ...)"
        )


def refuse_skipped_closures() -> None:
    """Refuse a closure from accelerate's wrapper if that may accumulate: it calls that of the last batch only.

    Raises
    ------
    RuntimeError
        Naming both remedies.
    """
    if _ACCELERATE not in sys.modules or _ACCELERATE not in _callers():
        return
    steps = sys.modules[_ACCELERATE].GradientState().num_steps  # the one that all wrappers share
    if steps > 1:
        raise RuntimeError(
            f"with gradient_accumulation_steps={steps}, and within accelerator.accumulate, which RSAM cannot see, "
            "accelerate calls the closure for the last of the accumulated batches only, so that the others are "
            "dropped; the weights are as before the step. Leave gradient_accumulation_steps at 1, and pass all batches "
            "of a step to rsam.integrations.accelerate.step; or call optimizer.optimizer.step(closure), past the "
            "wrapper, with a closure that evaluates all of them"
        )
