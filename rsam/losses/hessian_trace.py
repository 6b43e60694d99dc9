"""Penalise the trace of the Hessian."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rsam import geometry
from rsam.losses.closure import Evaluations, step_per_weight
from rsam.losses.penalty import Differences, Method, Params
from rsam.losses.random_penalty import Distribution, RandomPenalty

__all__ = ["HessianTrace"]


class HessianTrace(RandomPenalty):
    r"""Penalty :math:`\mathrm{tr}\,\mathrm{Hess}\,L`, the trace of the Riemannian Hessian, by Hutchinson's estimator.

    The estimate is the mean over probes ``v`` of :math:`v^\top H v + \langle g, a_x(v)\rangle`. ``H`` and ``g`` are the
    Euclidean Hessian and gradient, :math:`a_x(v)` is the acceleration of the geodesic, and :math:`v = B_x z` has random
    coordinates ``z`` in an orthonormal frame of the tangent space (Hutchinson 1989; Avron and Toledo 2011). The
    gradient is that of the sampled estimate, with ``z`` fixed.

    Where the loss is not convex the trace has no lower bound, and a large weight may drive it to minus infinity. Set
    ``clamp=0`` and raise the weight gradually from a small value, or use :class:`~rsam.losses.FisherTrace`, which is
    never negative and cheaper to differentiate.

    ``method="exact"`` differentiates three times. ``method="difference"`` is the three-point difference
    :math:`(L(R_x(ev)) - 2 L(x) + L(R_x(-ev)))/e^2` along a second-order retraction, with its exact gradient. It
    estimates the trace with error O(e²), and takes 3 gradient evaluations per training step instead of 6 to 10. On
    networks with ReLU or max pooling the two differ: the difference sees the kinks between its points, the derivative
    does not. In models entirely in bfloat16 the rounding of the loss dominates the three-point difference: use
    ``method="exact"`` there, or :class:`~rsam.losses.GradientNorm` or :class:`~rsam.losses.FisherTrace`.

    Parameters
    ----------
    params, weight, method : as for :class:`~rsam.losses.GradientNorm`
        The parameters to differentiate in, the factor of the penalty, and how it is differentiated.
    step : float, optional
        Length ``e`` of the difference. The default is :math:`\varepsilon^{1/4}` times the root mean square of all
        weights, with :math:`\varepsilon` as for :class:`~rsam.losses.GradientNorm`.
    clamp : float, optional
        Lower bound: a smaller estimate is replaced by it, with zero gradient.
    probes : int
        Number of probes ``v`` to average over.
    distribution : {"rademacher", "normal"}
        Distribution of the coordinates ``z``.
    seed : int
        Seed of the penalty's own random generators, one per device; ``state_dict`` holds their states.

    Raises
    ------
    ValueError
        For an option out of range, for no parameters, or one that is no leaf.

    Examples
    --------
    >>> import torch, rsam.losses
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> penalty = rsam.losses.HessianTrace([weight], clamp=0.0)
    >>> value = penalty(lambda: weight.pow(3).sum())  # Hessian diag(6, 12)
    >>> value
    tensor(18., grad_fn=<MulBackward0>)
    >>> value.backward()
    >>> weight.grad
    tensor([6., 6.])
    """

    order = 3

    def __init__(
        self,
        params: Params,
        *,
        weight: float = 1.0,
        method: Method = "exact",
        step: float | None = None,
        clamp: float | None = None,
        probes: int = 1,
        distribution: Distribution = "rademacher",
        seed: int = 0,
    ) -> None:
        super().__init__(params, weight, method, step, probes, distribution, seed)
        if clamp is not None and not math.isfinite(clamp):
            raise ValueError(f"clamp must be finite, got {clamp!r}")
        self.clamp = clamp

    def _exact(self, subject: Tensor) -> Tensor:
        space, gradient = self._gradient(subject)
        params = space.params
        curved = [i for i, g in enumerate(gradient) if g.requires_grad]  # the loss is linear in the other parameters
        total = torch.zeros((), device=params[0].device)
        for _ in range(self.probes):
            # with its graph, since the probe turns with the frame
            v = space.from_coordinates(params, self.coordinates(space))
            total = total + geometry.pairing(gradient, space.acceleration(params, v))
            if curved:
                products = self._autograd(
                    [gradient[i] for i in curved], params, [v[i] for i in curved], create_graph=True
                )
                pairs = [(h, u) for h, u in zip(products, v, strict=True) if h is not None]
                total = total + geometry.pairing(*zip(*pairs, strict=True))
        trace = total / self.probes
        return trace if self.clamp is None else trace.clamp_min(self.clamp)

    def _estimate(self, loss: Tensor, gradient: list[Tensor], evaluate: Evaluations) -> Differences:
        step = step_per_weight(evaluate.params, evaluate.rounding()) if self.step is None else self.step
        change, covectors, factor = self.second_difference(loss, gradient, step, evaluate)
        trace = change / step**2
        if self.clamp is not None and bool(trace < self.clamp):
            return torch.full_like(trace, self.clamp), covectors, 0.0
        return trace, covectors, factor / step**2
