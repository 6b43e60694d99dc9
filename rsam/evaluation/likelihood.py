"""Take square roots of a loss's Hessian in the outputs, for traces of Gauss-Newton and Fisher matrices."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Likelihood", "hessian_root"]

#: The losses ``nn.CrossEntropyLoss``, ``nn.BCEWithLogitsLoss`` and ``nn.MSELoss``, as models of the targets.
Likelihood = Literal["categorical", "bernoulli", "gaussian"]


def hessian_root(outputs: Tensor, signs: Tensor, likelihood: Likelihood) -> Tensor:
    r"""Return :math:`\Lambda^{1/2} s`, of covariance :math:`\Lambda` for independent random signs, smooth in outputs.

    :math:`\Lambda` is the Hessian in the outputs of the loss summed over examples and elements; for logits of classes
    it is :math:`\mathrm{diag}(p) - pp^\top = bb^\top` with :math:`b = \mathrm{diag}(\sqrt p) - p\sqrt p^\top`.

    Parameters
    ----------
    outputs : Tensor
        For ``"categorical"``: shape ``(N, C, ...)`` with logits of classes in dimension 1, or ``(C,)`` for a single
        example. Otherwise any shape.
    signs : Tensor
        Random signs of the same shape.
    likelihood : {"categorical", "bernoulli", "gaussian"}
        See :data:`Likelihood`.

    Returns
    -------
    Tensor
        Tensor of the shape of ``outputs``, at least in single precision.
    """
    f = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    signs = signs.to(f.dtype)
    if likelihood == "gaussian":
        return math.sqrt(2) * signs
    # roots of probabilities by their logarithms, which are differentiable even where a probability underflows
    if likelihood == "bernoulli":
        return torch.exp((F.logsigmoid(f) + F.logsigmoid(-f)) / 2) * signs
    classes = 1 if f.dim() > 1 else 0
    roots = torch.exp(F.log_softmax(f, classes) / 2)
    spread = roots * signs
    return spread - roots.square() * spread.sum(classes, keepdim=True)
