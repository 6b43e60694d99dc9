"""Penalise the trace of the Fisher information, or Gauss-Newton matrix."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from torch import Tensor

from rsam import geometry
from rsam.errors import NotFinite
from rsam.evaluation.likelihood import Likelihood, hessian_root
from rsam.geometry.sums import all_finite
from rsam.losses.closure import Evaluations, full_precision, step_length
from rsam.losses.differences import add, forward_difference
from rsam.losses.penalty import Closure, Method, Params
from rsam.losses.random_penalty import RandomPenalty
from rsam.losses.with_gradient import with_gradient

__all__ = ["FisherTrace"]


class FisherTrace(RandomPenalty):
    r"""Penalty :math:`\mathrm{tr}\,J^\top \Lambda J`, the trace of the generalised Gauss-Newton matrix of the loss.

    ``J`` is the Jacobian of the network's outputs in the parameters, in the metric of their manifolds, and
    :math:`\Lambda` the Hessian of the loss in the outputs: :math:`(\mathrm{diag}(p) - pp^\top)/N` for
    ``nn.CrossEntropyLoss`` on ``N`` examples, for which this is the trace of the Fisher information (Martens 2020, New
    Insights and Perspectives on the Natural Gradient Method). It is the part of the Hessian's trace that is never
    negative, and needs neither third derivatives nor labels. It is the recommended form of a trace penalty.

    The estimate is :math:`\|J^\top u\|^2` with random ``u`` of covariance :math:`\Lambda`, made from independent signs;
    cross terms between examples vanish in the mean, also under batch norm. The gradient is that of the estimate, and
    includes the dependence of ``u`` on the outputs.

    Call it with outputs instead of losses: ``penalty(outputs)``, ``penalty(closure)`` with a closure that returns the
    outputs, and ``objective(closure)`` with one that returns ``(loss, outputs)``.

    Parameters
    ----------
    params : as for :class:`~rsam.losses.GradientNorm`
        The parameters to differentiate in.
    likelihood : {"categorical", "bernoulli", "gaussian"}
        The loss, with mean reduction: ``nn.CrossEntropyLoss`` on logits ``(N, C, ...)``, ``nn.BCEWithLogitsLoss`` or
        ``nn.MSELoss``. Class weights, ignored targets and label smoothing are not taken into account.
    weight, method, step : as for :class:`~rsam.losses.GradientNorm`
        The factor of the penalty, and how it is differentiated; with ``method="difference"`` the value is exact, and
        its gradient has error O(t).
    probes, seed : as for :class:`~rsam.losses.HessianTrace`
        How many random ``u`` to average over, and their source.

    Raises
    ------
    ValueError
        For an option out of range, for no parameters, or one that is no leaf.

    Examples
    --------
    >>> import torch, rsam.losses
    >>> model = torch.nn.Linear(3, 4)
    >>> x, y = torch.randn(8, 3), torch.randint(4, (8,))
    >>> penalty = rsam.losses.FisherTrace(model.named_parameters(), weight=0.1)
    >>> def closure():
    ...     outputs = model(x)
    ...     return torch.nn.functional.cross_entropy(outputs, y), outputs
    >>> penalty.objective(closure).backward()
    """

    def __init__(
        self,
        params: Params,
        *,
        likelihood: Likelihood = "categorical",
        weight: float = 1.0,
        method: Method = "exact",
        step: float | None = None,
        probes: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(params, weight, method, step, probes, "rademacher", seed)
        if likelihood not in get_args(Likelihood):
            raise ValueError(f"likelihood must be one of {get_args(Likelihood)}, got {likelihood!r}")
        self.likelihood = likelihood

    def _loss_of(self, outcome: Any) -> Tensor:
        loss = self._pair(outcome)[0]
        super()._check(loss)
        return loss

    def _subject_of(self, outcome: Any) -> Tensor:
        return self._pair(outcome)[1]

    def _pair(self, outcome: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(outcome, tuple | list) or len(outcome) != 2:
            raise ValueError("the closure given to FisherTrace.objective must return (loss, outputs)")
        return outcome[0], outcome[1]

    def _check(self, loss: Any) -> None:
        if not isinstance(loss, Tensor) or not loss.dim() or not loss.is_floating_point():
            raise ValueError("FisherTrace needs the network's outputs (N, ...), not the loss or anything else")
        if not loss.numel():
            raise ValueError(f"FisherTrace needs outputs of one example or more, got shape {tuple(loss.shape)}")
        self._check_graph_of(loss)

    def _signs(self, outputs: Tensor) -> Tensor:
        return self.coordinates(geometry.Product([outputs]))[0]

    def _probe(self, outputs: Tensor, signs: Tensor) -> Tensor:
        r"""Return :math:`\Lambda^{1/2}` applied to random signs, for the mean reduction, smooth in the outputs."""
        count = outputs.numel()
        if self.likelihood == "categorical":
            count //= outputs.shape[1 if outputs.dim() > 1 else 0]
        return (hessian_root(outputs, signs, self.likelihood) / math.sqrt(count)).to(outputs.dtype)

    def _exact(self, subject: Tensor) -> Tensor:
        total = torch.zeros((), device=self._live()[0].device)
        for _ in range(self.probes):
            u = self._probe(subject, self._signs(subject))
            space, w = self._gradient(subject, u)
            total = total + geometry.pairing(w, space.raise_index(space.params, w))
        return total / self.probes

    def _difference(self, closure: Closure) -> Tensor:
        evaluate = self._evaluations(closure)
        return self._of_outputs(evaluate.here(), evaluate)

    def _objective_by_difference(self, closure: Closure) -> Tensor:
        evaluate = self._evaluations(closure, self._subject_of)
        outcome = evaluate.here()
        loss = self._loss_of(outcome)
        return loss + self._of_outputs(self._subject_of(outcome), evaluate, loss).to(loss.device)

    def _of_outputs(self, outputs: Any, evaluate: Evaluations, loss: Tensor | None = None) -> Tensor:
        """Return the weighted value, with a gradient in the leaves for fixed ``u``, and in outputs through ``u``."""
        self._check(outputs)
        total = torch.zeros((), device=evaluate.params[0].device)
        covectors: list[Tensor] = []
        to_outputs = torch.zeros_like(outputs)
        for _ in range(self.probes):
            f = outputs.detach().requires_grad_()
            u = self._probe(f, self._signs(f))
            w = evaluate.gradient_here(outputs, u.detach(), retain_graph=True)
            self._check_repeats(outputs, evaluate)
            params = evaluate.params
            with full_precision(params), torch.no_grad():
                penalised = w[: len(params)]
                raised = evaluate.space.raise_index(params, penalised)
                square = geometry.pairing(penalised, raised).clamp_min(0)
            length = math.sqrt(square)
            total = total + square
            covectors = covectors or [torch.zeros_like(g) for g in w]
            if not 0 < length < math.inf:
                continue
            step = step_length(params, evaluate.rounding()) if self.step is None else self.step
            moved, change = forward_difference(w, raised, step / length, evaluate, u.detach())
            covectors = add(covectors, change, 2 * length / step)
            if u.requires_grad:
                # d|J^T u|^2 / du = 2 J r, the change of the outputs along r = J^T u raised
                to_outputs += torch.autograd.grad(u, f, (moved - f.detach()) * (2 * length / step))[0]
        if not all_finite([total, *covectors, to_outputs] + ([] if loss is None else [loss])):
            raise NotFinite("FisherTrace, the loss beside it or a gradient is not finite")
        factor = self.weight / self.probes
        scaled = torch._foreach_mul([to_outputs, *covectors], factor)
        return with_gradient(factor * total, scaled, [outputs, *evaluate.params, *evaluate.others])
