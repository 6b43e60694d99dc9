"""Measure the norm of the gradient of an empirical risk, in the metric of the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rsam.evaluation.risk import Data, LossFunc, Params, Risk

__all__ = ["gradient_norm"]


def gradient_norm(
    model_func: Callable[[Any], Any],
    loss_func: LossFunc,
    params: Params,
    data: Data,
    *,
    num_data: int | None = None,
    batch_size_fn: Callable[[Any], int] | None = None,
    progressbar: bool = False,
) -> float:
    r"""Return the norm :math:`\|\mathrm{grad} f(x)\|_x` of the Riemannian gradient of a risk over all data.

    Parameters
    ----------
    model_func, loss_func, params, data : as for :class:`RiemannianHessian`
        The model, its loss, the parameters to differentiate in, and the data.
    num_data, batch_size_fn : as for :class:`RiemannianHessian`
        How to weight batches.
    progressbar : bool
        Show a bar over the batches.

    Returns
    -------
    float
        Not negative; the Euclidean norm on plain parameters.

    Raises
    ------
    ValueError, RuntimeError
        As :class:`RiemannianHessian`.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> torch.nn.init.constant_(model.weight, 2.0)
    Parameter containing:
    tensor([[2.]], requires_grad=True)
    >>> data = torch.ones(1, 1), torch.zeros(1, 1)
    >>> rsam.curvature.gradient_norm(model, torch.nn.MSELoss(), model.parameters(), data)
    4.0
    """
    risk = Risk(model_func, loss_func, params, data, num_data, batch_size_fn, progressbar)
    return math.sqrt(risk.slope(risk.gradient())[1])
