"""Take one training step on a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.methods.method import Objective, plain_loss
from benchmarks.workloads.problem import Batch

__all__ = ["Tally", "gradient_closure", "part_of", "take_step"]


class Tally:
    """Count what steps take.

    Attributes
    ----------
    seconds : list of float
        Duration of each step.
    gradients : float
        Gradient evaluations so far: examples whose loss was differentiated, in units of the batch of their step.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.gradients = 0.0

    def differentiated(self, share: float) -> None:
        """Count a part of a batch whose loss is being differentiated."""
        self.gradients += share


def gradient_closure(
    model: nn.Module,
    optimizer: Any,
    inputs: Tensor,
    targets: Tensor,
    objective: Objective = plain_loss,
    loss: Callable[[Any, Tensor], Tensor] = cross_entropy,
    differentiated: Callable[[], None] | None = None,
) -> Callable[[], Tensor]:
    """Make a closure for ``optimizer.step`` that computes loss and gradients on a batch; methods may call it twice.

    ``differentiated`` is called whenever autograd differentiates the loss of the batch, whoever asks for that.
    """

    def loss_of_batch() -> Tensor:
        value = loss(model(inputs), targets)
        if differentiated is not None:
            value.register_hook(lambda _: differentiated())
        return value

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(loss_of_batch)
        if not torch.isfinite(value):
            raise rsam.NotFinite("the loss is not finite")
        value.backward()
        return value

    return closure


def part_of(batch: Batch, part: float) -> Batch:
    """Return the first examples of a batch, at least one, as :func:`rsam.optim.partial_closures` takes them."""
    kept = max(1, round(part * len(batch[0])))
    return batch[0][:kept], batch[1][:kept]


def take_step(optimizer: Any, *closures: Callable[[], Tensor]) -> float | None:
    """Take a step with a closure, and another one for the ascent if it is given.

    Returns
    -------
    float or None
        The loss that the optimizer returns; None if no step was taken because loss or gradient were not finite.
    """
    try:
        loss: Any = optimizer.step(*closures)
    # a matrix was not finite, or singular to rounding
    except (rsam.NotFinite, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
        return None
    return float(loss.detach())
