"""Estimate the trace of the Fisher information of a model, in the metric of its parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rsam.curvature.estimate import Estimate, chunk_sizes, collect, generator_of
from rsam.evaluation.likelihood import Likelihood, hessian_root
from rsam.evaluation.parameters import check_dtypes
from rsam.evaluation.reach import graph_of
from rsam.evaluation.reduction import check_is_tensor, is_exactly, not_ignored, uncompiled
from rsam.evaluation.risk import Data, Params, Risk

__all__ = ["fisher_trace"]

_LIKELIHOODS: dict[type[nn.Module], Likelihood] = {
    nn.CrossEntropyLoss: "categorical",
    nn.BCEWithLogitsLoss: "bernoulli",
    nn.MSELoss: "gaussian",
}


def fisher_trace(
    model_func: Callable[[Any], Any],
    loss_func: nn.CrossEntropyLoss | nn.BCEWithLogitsLoss | nn.MSELoss,
    params: Params,
    data: Data,
    probes: int = 100,
    *,
    rtol: float | None = None,
    num_data: int | None = None,
    batch_size_fn: Callable[[Any], int] | None = None,
    seed: int | torch.Generator = 0,
    progressbar: bool = False,
) -> Estimate:
    r"""Estimate the trace of the Fisher information.

    The Fisher information is the Gauss-Newton matrix of the loss (Martens 2020, Sec. 9). The estimate is the mean of
    :math:`\|J^\top u\|_x^2` over random ``u`` whose covariance is the Hessian of the loss in the outputs. It takes
    first derivatives only, one backward pass per probe and batch. It is never negative, and right under batch norm in
    train mode, where single examples have no gradients.

    Parameters
    ----------
    model_func : callable
        Maps inputs to a tensor of outputs.
    loss_func : nn.CrossEntropyLoss, nn.BCEWithLogitsLoss or nn.MSELoss
        The loss, which defines the likelihood; with mean or sum reduction, without class weights.
    params, data : as for :class:`RiemannianHessian`
        The parameters, and the data, of whose targets only the number is used.
    probes : int
        Number of random vectors, at most.
    rtol : float, optional
        Stop as soon as the standard error is this fraction of the trace, after ten probes at least.
    num_data, batch_size_fn : as for :class:`RiemannianHessian`
        How to weight batches.
    seed : int or torch.Generator
        Source of the probes.
    progressbar : bool
        Show a bar over the probes.

    Returns
    -------
    Estimate
        The trace and its standard error.

    Raises
    ------
    ValueError, RuntimeError
        For another loss, or weights in it, and as :class:`RiemannianHessian`.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> data = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 1)
    >>> print(rsam.curvature.fisher_trace(model, torch.nn.MSELoss(), model.parameters(), data))
    10 ± 0
    """
    loss_func = uncompiled(loss_func)
    likelihood = next((name for loss, name in _LIKELIHOODS.items() if is_exactly(loss_func, loss)), None)
    if likelihood is None:
        names = ", ".join(f"nn.{loss.__name__}" for loss in _LIKELIHOODS)
        raise ValueError(f"loss_func must be one of {names}, got {type(loss_func).__name__}; for others take the trace "
                         "of a RiemannianGaussNewton")  # fmt: skip
    if getattr(loss_func, "weight", None) is not None or getattr(loss_func, "pos_weight", None) is not None:
        raise ValueError("loss_func has weights, which no likelihood has; take the trace of a RiemannianGaussNewton")
    if loss_func.reduction not in ("mean", "sum"):
        raise ValueError(f"loss_func must have reduction='mean' or 'sum', got {loss_func.reduction!r}")
    risk = Risk(model_func, loss_func, params, data, num_data, batch_size_fn)
    squares = _squared_norms(risk, likelihood, probes, generator_of(seed, risk.params[0].device))
    samples = collect(squares, probes, rtol, "fisher trace", "probe", progressbar)
    return Estimate.of(samples.squeeze(1), len(samples))


def _squared_norms(risk: Risk, likelihood: Likelihood, probes: int, generator: torch.Generator) -> Iterator[Tensor]:
    for count in chunk_sizes(probes):
        yield _squares(risk, likelihood, count, generator).unsqueeze(1)


def _squares(risk: Risk, likelihood: Likelihood, count: int, generator: torch.Generator) -> Tensor:
    """Return squared norms for ``count`` probes, which share the graphs of the batches."""
    squares, weights = torch.zeros(count, dtype=torch.float64), []
    with risk.evaluating(), torch.enable_grad():
        for outputs, targets, weight in risk.outputs(order=1):
            check_is_tensor(outputs)
            if outputs.is_complex():
                raise ValueError(
                    f"model_func must return real outputs, got {outputs.dtype}; pass a function that returns "
                    "torch.view_as_real of them"
                )
            check_dtypes(graph_of(outputs).dtypes)
            weights.append(weight)
            for k in range(count):
                signs = torch.empty(outputs.shape, device=generator.device).bernoulli_(0.5, generator=generator)
                root = hessian_root(outputs.detach(), 2 * signs.to(outputs.device) - 1, likelihood)
                u = _normalised(risk.loss_func, root, targets)
                g = risk.gradient_of(outputs, retain_graph=True, grad_outputs=u.to(outputs.dtype))
                squares[k] += weight * risk.slope(g)[1]
    return squares / risk.total(weights)


def _normalised(loss_func: Any, u: Tensor, targets: Tensor) -> Tensor:
    """Scale ``u`` for the reduction of the loss, to 0 where a target is ignored."""
    count = u.numel()
    if isinstance(loss_func, nn.CrossEntropyLoss):
        classes = 1 if u.dim() > 1 else 0
        count = u.numel() // u.shape[classes]
        if not targets.is_floating_point():
            counted = not_ignored(targets, loss_func.ignore_index)
            u, count = u * counted.unsqueeze(classes), int(counted.sum())
    return u if loss_func.reduction == "sum" else u / math.sqrt(max(count, 1))
