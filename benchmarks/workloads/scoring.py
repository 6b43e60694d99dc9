"""Score classifiers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from benchmarks.workloads.problem import Batch

__all__ = ["accuracies", "accuracy", "logits"]


@torch.no_grad()
def logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """Compute outputs ``(n, classes, ...)`` in evaluation mode, for a part of the inputs at a time."""
    model.eval()
    return torch.cat([model(part) for part in inputs.split(500)])


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Return the part of outputs ``(n, classes, ...)`` that are right: finite, with the largest at the target."""
    finite = torch.isfinite(outputs).all(1)
    return float(((outputs.argmax(1) == targets) & finite).double().mean())


def accuracies(model: nn.Module, sets: Mapping[str, Batch]) -> dict[str, float]:
    """Measure accuracy on several data sets; the keys of the result begin with their prefixes."""
    return {f"{prefix}accuracy": accuracy(logits(model, x), y) for prefix, (x, y) in sets.items()}
