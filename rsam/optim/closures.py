"""Make closures of a whole batch and of a part of it, and read the losses that closures return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rsam.optim.backward import SEE_GUIDE, keeps_graph

__all__ = ["are_one", "computing_anew", "number", "partial_closures"]


def partial_closures(
    optimizer: torch.optim.Optimizer, loss: Callable[..., Tensor], batch: Sequence[Any], fraction: float = 0.25
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Make the closures of a step that ascends along the gradient of a part of the batch.

    The part is the first examples of the batch, at least one; the loader should shuffle. With ``fraction=1`` it is the
    whole batch.

    Parameters
    ----------
    optimizer : rsam.RSAM
        The optimizer, whose gradients the closures clear.
    loss : callable
        Takes the entries of a batch and returns the loss, a mean over the examples.
    batch : tuple or list
        Tensors or lists with one entry per example, such as ``(inputs, labels)``. Entries of another length than the
        first tensor are passed to both closures unchanged.
    fraction : float
        Part of the batch for the ascent, in (0, 1]; with 1 the step is that of ``step(closure)``.

    Returns
    -------
    tuple of callable
        Closures of the whole batch and of the part.

    Raises
    ------
    ValueError
        For a fraction out of range, and for a batch that is no tuple or list with a tensor.

    References
    ----------
    R. Ni, P. Chiang, J. Geiping, M. Goldblum, A. G. Wilson, T. Goldstein, K-SAM: Sharpness-Aware Minimization at the
    Speed of SGD, 2022.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(3, 2)
    >>> opt = rsam.RSAM(model.parameters(), rho=0.6, lr=0.1)
    >>> batch = torch.randn(8, 3), torch.randint(2, (8,))
    >>> def loss(x, y):
    ...     return torch.nn.functional.cross_entropy(model(x), y)
    >>> value = opt.step(*rsam.optim.partial_closures(opt, loss, batch, fraction=0.25))
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")

    lengths = [len(entry) for entry in batch if isinstance(entry, Tensor) and entry.dim()] if _listed(batch) else []
    if not lengths:
        raise ValueError(f"batch must be a tuple or list with a tensor, such as (inputs, labels), got {type(batch)}")
    kept = max(1, round(fraction * lengths[0]))

    def closure_of(entries: Sequence[Any]) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(*entries)
            value.backward()
            return value

        return closure

    def cut(entry: Any) -> Any:
        per_example = (isinstance(entry, Tensor) and entry.dim()) or _listed(entry)
        return entry[:kept] if per_example and len(entry) == lengths[0] else entry

    whole = closure_of(batch)
    return whole, whole if kept >= lengths[0] else closure_of([cut(entry) for entry in batch])


def _listed(batch: Any) -> bool:
    return isinstance(batch, tuple | list)


def computing_anew(closure: Callable[[], Any], first: Any) -> Callable[[], Any]:
    """Make the closure of a second pass, which must not return the ``first`` loss with a graph that it differentiates.

    Raises
    ------
    RuntimeError
        In the pass, if it does.
    """

    def second() -> Any:
        loss = closure()
        if loss is first and keeps_graph(loss):  # the tensor that a CUDA graph writes to is one, too, but keeps none
            raise RuntimeError(
                "the closure differentiates one graph in both passes, so that the second gradient is not that of the "
                "perturbed weights; the weights are as before the step. Compute the loss in the closure, without "
                f"retain_graph=True; {SEE_GUIDE}"
            )
        return loss

    return second


def number(loss: Any) -> Any:
    """Return a copy of a loss, without waiting for the device; None if it is no number."""
    if isinstance(loss, Tensor):
        return loss.detach().clone() if loss.numel() == 1 else None
    return loss if isinstance(loss, float | int) else None


def are_one(first: Any, second: Any) -> bool:
    """Tell whether two losses are the same number in memory, as where a CUDA graph computes both."""
    both = isinstance(first, Tensor) and isinstance(second, Tensor)
    return both and first.numel() == second.numel() == 1 and first.data_ptr() == second.data_ptr()
