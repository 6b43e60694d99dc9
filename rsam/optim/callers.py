"""Refuse callers with whom a step would be wrong without a sign of it in what they pass."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["refuse_part_of_a_model", "refuse_skipped_closures"]

_ZERO = "torch.distributed.optim.zero_redundancy_optimizer"
_ACCELERATE = "accelerate.optimizer"


def _is_called_from(module: str) -> bool:
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != module:
        frame = frame.f_back
    return frame is not None


def refuse_part_of_a_model() -> None:
    """Refuse to be made by ZeroRedundancyOptimizer, whose optimizer sees the parameters of one process only.

    Raises
    ------
    ValueError
        Saying what to wrap instead.
    """
    if _ZERO in sys.modules and _is_called_from(_ZERO):
        raise ValueError(
            "ZeroRedundancyOptimizer gives RSAM the parameters of one process only, and a norm over those; wrap "
            "the base optimizer: RSAM(params, partial(ZeroRedundancyOptimizer, optimizer_class=...), ...)"
        )


def refuse_skipped_closures() -> None:
    """Refuse a closure from accelerate's wrapper if that may accumulate: it calls the closure of the last batch only.

    Raises
    ------
    RuntimeError
        Naming both remedies.
    """
    if _ACCELERATE not in sys.modules or not _is_called_from(_ACCELERATE):
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
