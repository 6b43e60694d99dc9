"""Measure how much a risk can rise, or rises on average, within a ball around the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from rsam import geometry
from rsam.curvature.estimate import Estimate, generator_of
from rsam.evaluation import at_points
from rsam.evaluation.batches import as_pair, pieces
from rsam.evaluation.optional import progress
from rsam.evaluation.parameters import as_integer
from rsam.evaluation.risk import Data, LossFunc, Params, Risk, check_repeats

__all__ = ["sharpness"]


def sharpness(
    model_func: Callable[[Any], Any],
    loss_func: LossFunc,
    params: Params,
    data: Data,
    rho: float = 0.05,
    *,
    kind: Literal["worst", "average"] = "worst",
    steps: int = 1,
    restarts: int = 0,
    micro_batch: int | None = None,
    adaptive: bool = False,
    probes: int = 100,
    batch_size_fn: Callable[[Any], int] | None = None,
    seed: int | torch.Generator = 0,
    progressbar: bool = False,
) -> Estimate:
    r"""Measure the rise of the risk around the weights, in the metric of their manifolds.

    ``kind="worst"`` is :math:`\max_{\|e\|_x \le \rho} f(R_x(e)) - f(x)` (Foret et al. 2021, eq. 1). The result is a
    lower bound: the rise by one step along the gradient, as SAM takes it, or by projected gradient ascent of the lifted
    risk :math:`e \mapsto f(R_x(e))` from the centre and from random starts. ``kind="average"`` is
    :math:`\mathbb{E} f(R_x(\rho v)) - f(x)` over normal isotropic tangents ``v``, estimated by pairs of opposite ones
    (Andriushchenko et al. 2023, eq. 2); the length of ``rho v`` is about :math:`\rho\sqrt{\mathrm{dimension}}`.
    The curves :math:`R_x` agree with geodesics to second order.

    A rise is a difference of two losses, so that a loss in half precision, of two or three digits, hides small ones.
    Let the loss compute in single precision, as of ``outputs.float()``, or take a larger ``rho``.

    Parameters
    ----------
    model_func, loss_func, params, data : as for :class:`RiemannianHessian`
        The model, its loss, the parameters to perturb, and the data.
    rho : float
        Radius, or standard deviation in each direction; positive.
    kind : {"worst", "average"}
        See above.
    steps : int
        Gradient evaluations of each ascent; 1 is SAM's step.
    restarts : int
        Ascents from random points of the sphere of radius ``rho``, beside the one from the centre. They alone find a
        rise if the gradient is zero.
    micro_batch : int, optional
        Size of the pieces for m-sharpness, the mean of the worst cases of disjoint pieces of ``data``, each with its
        own perturbation (Foret et al. 2021, Sec. 4.1). Pieces do not cross batches.
    adaptive : bool
        Measure plain parameters in units of their size, :math:`\|e / |x|\|` (Kwon et al. 2021); not on manifolds.
    probes : int
        Pairs of random directions for ``kind="average"``.
    batch_size_fn : callable, optional
        Takes the inputs of a batch and returns the number of its examples, as for :class:`RiemannianHessian`.
    seed : int or torch.Generator
        Source of directions and starts.
    progressbar : bool
        Show a bar over ascents, batches or probes.

    Returns
    -------
    Estimate
        The rise, with a standard error over probes or pieces; the error is 0 for the worst case over all data.

    Raises
    ------
    ValueError, RuntimeError
        For bad options, and as :class:`RiemannianHessian`; if two passes over a loader differ, so that a rise would be
        one of the data.
    UnsupportedOperation
        If a manifold has no second-order retraction; names both.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> data = torch.ones(1, 1), torch.zeros(1, 1)
    >>> worst = rsam.curvature.sharpness(model, torch.nn.MSELoss(), model.parameters(), data, rho=0.5)
    >>> print(worst)  # 1.5^2 - 1^2
    1.25 ± 0
    """
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be positive and finite, got {rho}")
    if kind not in ("worst", "average"):
        raise ValueError(f"kind must be 'worst' or 'average', got {kind!r}")
    for name, value, least in (("steps", steps, 1), ("restarts", restarts, 0), ("probes", probes, 1)):
        as_integer(name, value, least)
    if micro_batch is not None and (kind == "average" or as_integer("micro_batch", micro_batch) < 1):
        raise ValueError(f"micro_batch must be at least 1, and is for kind='worst', got {micro_batch}")
    risk = Risk(model_func, loss_func, params, data, batch_size_fn=batch_size_fn)
    generator = generator_of(seed, risk.params[0].device)
    if kind == "average":
        return _Ball(risk, rho, adaptive, generator).average(probes, progressbar)
    if micro_batch is None:
        return Estimate.exactly(*_Ball(risk, rho, adaptive, generator).worst(steps, restarts, progressbar))
    return _of_pieces(risk, micro_batch, rho, adaptive, generator, steps, restarts, progressbar)


def _of_pieces(
    risk: Risk, size: int, rho: float, adaptive: bool, generator: torch.Generator, steps: int, restarts: int, bar: bool
) -> Estimate:
    values, weights, evaluations = [], [], 0
    with risk.evaluating():  # since the loader draws random numbers too
        for batch in progress(risk.data, show=bar, desc="sharpness", unit="batch"):
            for piece in pieces(batch, size):
                weight = risk.weight_of(*as_pair(piece))
                if weight == 0:
                    continue
                value, count = _Ball(risk.piece(piece), rho, adaptive, generator).worst(steps, restarts)
                values.append(value)
                weights.append(weight)
                evaluations += count
    if not values:
        raise ValueError("data is empty: it yields no batch")
    risk.check_reach()
    samples, shares = torch.tensor(values, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
    shares, n = shares / shares.sum(), len(values)
    mean = float((shares * samples).sum())
    error = float((shares * (samples - mean)).norm()) * math.sqrt(n / (n - 1)) if n > 1 else math.nan
    return Estimate(mean, error, samples, evaluations)


class _Ball:
    """Ball of radius rho around the weights, in coordinates in which it is round."""

    def __init__(self, risk: Risk, rho: float, adaptive: bool, generator: torch.Generator) -> None:
        self.risk, self.rho, self.generator = risk, rho, generator
        self.centre = risk.value()
        self.evaluations = 1
        if not isinstance(risk.data, Sequence):
            check_repeats(self.centre, risk.value())
            self.evaluations += 1
        self.scales = [p.detach().abs() for p in risk.params] if adaptive else None
        for i, p in enumerate(risk.params):
            if adaptive and not geometry.is_plain(p):
                raise ValueError(f"adaptive=True rescales elementwise, but {risk.describe(i)} lives on a manifold")

    def _stretch(self, vectors: list[Tensor]) -> list[Tensor]:
        return vectors if self.scales is None else list(torch._foreach_mul(vectors, self.scales))

    def _at(self, e: list[Tensor]) -> float:
        """Return the risk at ``R_x(e)`` minus that at the centre."""
        self.evaluations += 1
        with torch.no_grad():
            points = self.risk.space.retract_second_order(self.risk.params, self._stretch(e))
        with at_points(self.risk.params, points):
            return self.risk.value() - self.centre

    def _slope(self, e: list[Tensor]) -> list[Tensor]:
        """Return the unit ascent direction of the lifted risk at ``e``, as a tangent; zero if the gradient is."""
        params = self.risk.params
        self.evaluations += 1
        with torch.enable_grad():
            variables = [t.detach().requires_grad_() for t in e]
            centre = [p.detach() for p in params]
            points = self.risk.space.retract_second_order(centre, self._stretch(variables))
            with at_points(params, points):
                gradient = self.risk.gradient()
            covectors = torch.autograd.grad(points, variables, gradient)
        slope, square = self.risk.slope(covectors)
        return list(torch._foreach_div(slope, math.sqrt(square))) if square > 0 else slope

    def worst(self, steps: int, restarts: int, progressbar: bool = False) -> tuple[float, int]:
        """Return the greatest rise found, and the number of evaluations."""
        best = 0.0  # the centre is in the ball
        for i in progress(range(1 + restarts), show=progressbar, desc="sharpness", unit="ascent"):
            with torch.no_grad():
                start = [torch.zeros_like(p) for p in self.risk.params]
                if i:
                    start = self.risk.space.random_tangent(self.risk.params, generator=self.generator)
                    norm = float(self.risk.space.norm(self.risk.params, start))
                    start = list(torch._foreach_mul(start, self.rho / norm if norm else 0.0))
                best = max(best, self._ascend(start, steps))
        return best, self.evaluations

    def _ascend(self, e: list[Tensor], steps: int) -> float:
        best, last, length = 0.0, -math.inf, self.rho
        for _ in range(steps):
            # steps are as long as the radius: on the sphere this is a power iteration, which converges, while steps of
            # 2.5 rho / steps (Madry et al. 2018) cover too short a way, however many. Where a step inside the ball
            # overshoots, it is halved
            e = list(torch._foreach_add(e, self._slope(e), alpha=length))
            norm = float(self.risk.space.norm(self.risk.params, e))
            if norm > self.rho:
                e = list(torch._foreach_mul(e, self.rho / norm))
            rise = self._at(e)
            length = length if rise > last else length / 2
            best, last = max(best, rise), rise
        return best

    def average(self, probes: int, progressbar: bool) -> Estimate:
        """Average the rise over pairs of opposite normal tangents."""
        samples = torch.empty(probes, dtype=torch.float64)
        for i in progress(range(probes), show=progressbar, desc="sharpness", unit="pair"):
            with torch.no_grad():
                v = self.risk.space.random_tangent(self.risk.params, generator=self.generator)
                e = list(torch._foreach_mul(v, self.rho))
                samples[i] = (self._at(e) + self._at(list(torch._foreach_neg(e)))) / 2
        return Estimate.of(samples, self.evaluations)
