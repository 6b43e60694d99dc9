"""Find out how a loss combines examples, and hence how to combine batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Reduction",
    "check_is_tensor",
    "counted_labels",
    "is_exactly",
    "not_ignored",
    "own_loss",
    "uncompiled",
    "uncompiled_name",
]

_CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)


def uncompiled(function: Any) -> Any:
    """Return the original of a compiled module or function, or the argument itself if it is not compiled.

    A compiled function has no second derivative, and does not tell which loss it is.
    """
    inner = getattr(function, "_orig_mod", getattr(function, "_torchdynamo_orig_callable", function))
    if getattr(inner, "__globals__", {}).get("__name__") == "torch._dynamo.external_utils":
        return inner.__wrapped__  # torch wraps its own functions a second time
    return inner


def uncompiled_name(name: str) -> str:
    """Return the dotted name that a parameter, buffer or module of compiled modules has without compilation."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def own_loss(outputs: Any) -> Any:
    """Return the loss that a model returned: the output itself, or its attribute or item ``loss``."""
    loss = outputs if isinstance(outputs, Tensor) else getattr(outputs, "loss", None)
    if loss is None and isinstance(outputs, Mapping):
        loss = outputs.get("loss")
    if loss is None:
        raise ValueError(
            f"loss_func is None, but model_func returned no loss in its {type(outputs).__name__}; do the batches hold "
            "labels?"
        )
    return loss


def check_is_tensor(outputs: Any) -> None:
    """Raise ValueError if outputs cannot be differentiated by themselves."""
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"model_func must return a tensor, not {type(outputs).__name__}; pass a function that returns one of it, "
            "such as lambda inputs: model(**inputs).logits"
        )


def counted_labels(model: nn.Module | None, batch: Any) -> float | None:
    """Return the number of labels that a model's own loss averages over; None if the batch has no class labels.

    The conventions are those of Transformers: the label -100 is ignored, and a causal language model predicts all
    tokens but the first.
    """
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, Tensor) or labels.is_floating_point():
        return None
    causal = getattr(getattr(model, "loss_function", None), "__name__", "") == "ForCausalLMLoss"
    if causal and labels.dim() > 1 and not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        labels = labels[..., 1:]
    return float(not_ignored(labels, -100).sum())


def not_ignored(targets: Tensor, ignore_index: int) -> Tensor:
    """Tell which targets of a class loss count."""
    return targets.long() != ignore_index  # bytes are equal to numbers that are 256 less


def is_exactly(loss_func: Any, kind: type[nn.Module]) -> bool:
    """Tell whether a loss is of that class and does not override its ``forward``."""
    return isinstance(loss_func, kind) and type(loss_func).forward is kind.forward


@dataclass(frozen=True)
class Reduction:
    """Rule by which a loss combines examples, read off its module, torch's function, or a partial application of it.

    Attributes
    ----------
    sums : bool
        Whether the loss is a sum instead of a mean.
    of_classes : bool
        Whether the loss divides by the total weight of the targets that are not ignored.
    weight : Tensor or None
        Weights of the classes.
    ignore_index : int
        Target that is ignored.
    """

    sums: bool
    of_classes: bool
    weight: Tensor | None
    ignore_index: int

    @classmethod
    def of(cls, loss_func: Callable[..., Any] | None) -> Reduction:
        """Read the reduction off a loss; a loss without one is taken for a mean over examples."""
        keywords: dict[str, Any] = {}
        while isinstance(loss_func, functools.partial):
            keywords = {**loss_func.keywords, **keywords}
            loss_func = loss_func.func
        if isinstance(module := getattr(loss_func, "__self__", None), nn.Module) and loss_func == module.forward:
            loss_func = module  # which has the reduction

        def option(name: str, default: Any) -> Any:
            return keywords.get(name, getattr(loss_func, name, default))

        classes = loss_func in (F.cross_entropy, F.nll_loss) or any(is_exactly(loss_func, k) for k in _CLASS_LOSSES)
        return cls(option("reduction", "mean") == "sum", classes, option("weight", None), option("ignore_index", -100))

    def weight_of(self, targets: Tensor) -> float:
        """Return the number that a class loss divides by for these targets."""
        counted = not_ignored(targets, self.ignore_index)
        if self.weight is None:
            return float(counted.sum())
        return float(self.weight[targets[counted].long()].sum())  # bytes would be a mask
