"""Penalise the expected rise of the loss under random perturbations."""

from __future__ import annotations

import math

from torch import Tensor

from rsam.losses.closure import Evaluations
from rsam.losses.penalty import Differences, Params
from rsam.losses.random_penalty import Distribution, RandomPenalty

__all__ = ["Sharpness"]


class Sharpness(RandomPenalty):
    r"""Penalty :math:`E\,L(R_x(\rho v)) - L(x)`, the sensitivity to isotropic noise in the weights.

    The noise has standard deviation ``rho`` in each direction of an orthonormal frame of the tangent space, and comes
    in pairs :math:`\pm v`, which cancels the first-order term. To second order this is :math:`\rho^2/2` times the
    trace of the Riemannian Hessian (the expected sharpness of Neyshabur et al. 2017). The gradient is the exact one of
    the sampled estimate. It takes gradients of the loss only, so that there is no choice of ``method``, but a closure
    is needed. A training step takes ``1 + 2 probes`` gradient evaluations.

    Loss plus ``weight`` times the penalty is :math:`(1 - w) L + w\,E\,L`. With a weight up to 1 it is bounded below if
    the loss is. With a larger weight in general it is not, since the loss itself then has a negative factor.

    Parameters
    ----------
    params : as for :class:`~rsam.losses.GradientNorm`
        The parameters to perturb.
    rho : float
        Standard deviation of the noise, positive; may be changed at any time.
    weight : float
        Factor of the penalty; may be changed at any time. With 0 the penalty is not evaluated.
    probes : int
        Number of pairs to average over.
    distribution, seed : as for :class:`~rsam.losses.HessianTrace`
        Distribution and source of the noise, which is normal by default.

    Raises
    ------
    ValueError
        For an option out of range, for no parameters, or one that is no leaf.

    Examples
    --------
    >>> import torch, rsam.losses
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> penalty = rsam.losses.Sharpness([weight], rho=0.1, distribution="rademacher")
    >>> penalty(lambda: weight.square().sum())
    tensor(0.0200, grad_fn=<...>)
    """

    def __init__(
        self,
        params: Params,
        rho: float,
        *,
        weight: float = 1.0,
        probes: int = 1,
        distribution: Distribution = "normal",
        seed: int = 0,
    ) -> None:
        super().__init__(params, weight, "difference", None, probes, distribution, seed)
        if not 0 < rho < math.inf:
            raise ValueError(f"rho must be positive and finite, got {rho!r}")
        self.rho = rho

    def _estimate(self, loss: Tensor, gradient: list[Tensor], evaluate: Evaluations) -> Differences:
        change, covectors, factor = self.second_difference(loss, gradient, self.rho, evaluate)
        return change / 2, covectors, factor / 2
