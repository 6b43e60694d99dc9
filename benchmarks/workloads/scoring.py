"""Scores of classifiers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from benchmarks.workloads.problem import Batch

__all__ = ["accuracy", "cosine"]


@torch.no_grad()
def accuracy(model: nn.Module, sets: Mapping[str, Batch]) -> dict[str, float]:
    """Accuracy of logits ``(n, classes, ...)`` on several sets, by their prefixes; 0 where logits are not numbers."""
    model.eval()
    found = {}
    for prefix, (inputs, targets) in sets.items():
        logits = torch.cat([model(part) for part in inputs.split(500)])
        finite = torch.isfinite(logits).all(1)
        found[f"{prefix}accuracy"] = float(((logits.argmax(1) == targets) & finite).double().mean())
    return found


def cosine(progress: float) -> float:
    """A learning rate that falls to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * progress))
