"""How a loss combines examples, which says how batches combine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Reduction", "is_exactly"]

_CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)


def is_exactly(loss_func: Any, kind: type[nn.Module]) -> bool:
    """Whether a loss is of that kind, and computes what it does."""
    return isinstance(loss_func, kind) and type(loss_func).forward is kind.forward


@dataclass(frozen=True)
class Reduction:
    """What is known of a loss: from the module, from torch's function, or from a partial application of it.

    Attributes
    ----------
    sums : bool
        Sum instead of mean.
    of_classes : bool
        Whether it divides by the weights of the targets that are not ignored.
    weight : Tensor or None
        Weights of the classes.
    ignore_index : int
        Target that does not count.
    """

    sums: bool
    of_classes: bool
    weight: Tensor | None
    ignore_index: int

    @classmethod
    def of(cls, loss_func: Callable[..., Any]) -> Reduction:
        """Read the reduction off a loss; a mean over examples if it does not tell."""
        keywords: dict[str, Any] = {}
        while isinstance(loss_func, functools.partial):
            keywords = {**loss_func.keywords, **keywords}
            loss_func = loss_func.func

        def option(name: str, default: Any) -> Any:
            return keywords.get(name, getattr(loss_func, name, default))

        classes = loss_func in (F.cross_entropy, F.nll_loss) or any(is_exactly(loss_func, k) for k in _CLASS_LOSSES)
        return cls(option("reduction", "mean") == "sum", classes, option("weight", None), option("ignore_index", -100))

    def weight_of(self, targets: Tensor) -> float:
        """What a class loss divides by for these targets."""
        counted = targets[targets != self.ignore_index]
        return float(counted.numel() if self.weight is None else self.weight[counted].sum())
