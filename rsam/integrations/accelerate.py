"""Take steps of RSAM in loops written with Hugging Face's accelerate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rsam.integrations.frameworks import needs
from rsam.integrations.halves import Writes, ascend, check_scaler, in_new_containers, needs_gradient, unwrapped

with needs("accelerate"):
    from accelerate import Accelerator

__all__ = ["step"]

_Batch = TypeVar("_Batch")


def step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    loss: Callable[[_Batch], Tensor],
    batches: Sequence[_Batch],
    *,
    max_grad_norm: float | None = None,
) -> Tensor:
    """Take one step of RSAM with the mean loss of batches that are evaluated one after another.

    All batches are evaluated at the weights, then all again at the perturbed weights. Processes exchange gradients once
    per pass, after its last batch. With ``mixed_precision="fp16"`` the gradients of both passes are scaled.

    Parameters
    ----------
    accelerator : accelerate.Accelerator
        With ``gradient_accumulation_steps=1``, as this accumulates.
    model : torch.nn.Module
        As ``accelerator.prepare`` returns it.
    optimizer : torch.optim.Optimizer
        As ``accelerator.prepare`` returns it, of an :class:`rsam.RSAM`.
    loss : callable
        Function of a batch that returns its loss, a scalar tensor.
    batches : sequence
        One batch or more.
    max_grad_norm : float, optional
        Clip the second gradient to this norm.

    Returns
    -------
    Tensor
        The mean loss at the weights before the step; with ``direction="momentum"`` that at the perturbed weights.

    Raises
    ------
    ValueError
        Without batches; for an accelerator that divides the loss; for a gradient scaler without ``nonfinite="skip"``.
    TypeError
        If the optimizer is not an :class:`rsam.RSAM`, ``batches`` is no sequence, or the loss is no tensor.
    RuntimeError
        If each pass changes a batch in place.

    Examples
    --------
    >>> import accelerate, torch, rsam
    >>> import rsam.integrations.accelerate
    >>> accelerator = accelerate.Accelerator(cpu=True)
    >>> model = torch.nn.Linear(3, 1)
    >>> model, optimizer = accelerator.prepare(model, rsam.RSAM(model.parameters(), lr=0.1))
    >>> loss = lambda batch: model(batch).square().mean()
    >>> batches = [torch.ones(2, 3), -torch.ones(2, 3)]
    >>> first = rsam.integrations.accelerate.step(accelerator, model, optimizer, loss, batches)
    >>> bool(loss(batches[0]) + loss(batches[1]) < 2 * first)
    True
    """
    if not isinstance(batches, Sequence):
        raise TypeError(f"batches must be a list, got {type(batches).__name__}; for a single batch pass [batch]")
    if not batches:
        raise ValueError("step needs one batch or more")
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            f"Accelerator(gradient_accumulation_steps={accelerator.gradient_accumulation_steps}) divides each loss; "
            "leave it at 1, and pass all batches of a step to rsam.integrations.accelerate.step"
        )
    inner, scaler = unwrapped(optimizer), accelerator.scaler
    check_scaler(inner, scaler)

    def evaluate() -> Tensor:
        losses = []
        for i, batch in enumerate(batches):
            with nullcontext() if i == len(batches) - 1 else accelerator.no_sync(model):
                value = loss(in_new_containers(batch))
                if not isinstance(value, Tensor):
                    raise TypeError(f"loss must return a scalar tensor, got {type(value).__name__}")
                value = value / len(batches)
                accelerator.backward(value)
                losses.append(value.detach())
        return torch.stack(losses).sum()

    writes = Writes()
    for batch in batches:
        writes.watch(batch)
    inner.zero_grad()
    two_passes = inner.ascends and needs_gradient(inner)
    try:
        if inner.ascends and not two_passes:
            ascend(inner)
        first = evaluate()
        if two_passes:
            writes.note()
            ascend(inner, scaler)
            evaluate()
            writes.refuse()
        if max_grad_norm is not None:
            accelerator.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.step()
    finally:
        inner.restore()  # after an exception, or if a scaler has skipped the second half
    return first
