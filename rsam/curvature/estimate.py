"""Numbers with their errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rsam.evaluation.optional import optional, progress

__all__ = ["CHUNK", "Estimate", "generator_of", "sample"]

#: Probes that are drawn at a time: what a loader's graphs are shared by.
CHUNK = 10


@dataclass(frozen=True)
class Estimate:
    """A number from random samples, with its error.

    Attributes
    ----------
    value : float
        The estimate.
    standard_error : float
        Standard deviation of ``value``; 0 for an exact number, nan from a single sample.
    samples : Tensor
        Shape ``(n,)``: what ``value`` is the mean of, in double precision on the CPU.
    products : int
        Matrix-vector products that it took, or evaluations of the risk.

    Examples
    --------
    >>> import torch, rsam
    >>> estimate = rsam.curvature.Estimate.of(torch.tensor([1.0, 2.0, 3.0]), products=3)
    >>> print(estimate)
    2 ± 0.58
    >>> low, high = estimate.interval(0.95)
    >>> round(low, 2), round(high, 2)
    (-0.48, 4.48)
    """

    value: float
    standard_error: float
    samples: Tensor = field(repr=False, compare=False)
    products: int

    @classmethod
    def of(cls, samples: Tensor, products: int) -> Estimate:
        """Mean of independent samples."""
        samples = samples.detach().double().cpu()
        n = samples.numel()
        error = float(samples.std()) / math.sqrt(n) if n > 1 else math.nan
        return cls(float(samples.mean()), error, samples, products)

    @classmethod
    def exactly(cls, value: float, products: int) -> Estimate:
        """A number without a random error."""
        return cls(value, 0.0, torch.tensor([value], dtype=torch.float64), products)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval from Student's t with ``n - 1`` degrees of freedom; its level is nominal.

        Raises
        ------
        ValueError
            If ``level`` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        if self.standard_error == 0:
            return self.value, self.value
        t = optional("scipy.stats", "a confidence interval").t
        half = float(t.ppf((1 + level) / 2, max(self.samples.numel() - 1, 1))) * self.standard_error
        return self.value - half, self.value + half

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.standard_error:.2g}"


def sample(
    draw: Callable[[int], Tensor], probes: int, rtol: float | None, what: str, unit: str, progressbar: bool
) -> Tensor:
    """Draw rows until there are ``probes``, or their sums have a mean with the relative standard error ``rtol``.

    Parameters
    ----------
    draw : callable
        Takes a number of rows to draw at once and returns them, ``(n, parts)`` in double precision on the CPU.
    """
    if probes < 1:
        raise ValueError(f"probes must be at least 1, got {probes}")
    if rtol is not None and not rtol > 0:
        raise ValueError(f"rtol must be positive, got {rtol}")
    rows: list[Tensor] = []
    with progress(show=progressbar, total=probes, desc=what, unit=unit) as bar:
        while len(rows) < probes:
            count = min(CHUNK, probes - len(rows))
            rows += draw(count).unbind()
            bar.update(count)
            if rtol is not None and len(rows) >= CHUNK:  # fewer say too little of their own spread
                so_far = torch.stack(rows).sum(1)
                if float(so_far.std()) / math.sqrt(len(rows)) <= rtol * abs(float(so_far.mean())):
                    break
    return torch.stack(rows)


def generator_of(seed: int | torch.Generator, device: torch.device) -> torch.Generator:
    """Source of randomness on a device: a new one from a seed, or the given one."""
    if isinstance(seed, torch.Generator):
        if seed.device.type != device.type:
            raise ValueError(f"seed: the generator is on {seed.device}, but the operator is on {device}")
        return seed
    return torch.Generator(device).manual_seed(seed)
