"""Estimate numbers from random samples, with their errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rsam.evaluation.optional import optional, progress
from rsam.evaluation.parameters import as_integer
from rsam.evaluation.random_state import own_generator

__all__ = ["CHUNK", "Estimate", "chunk_sizes", "collect", "generator_of"]

#: Number of probes drawn at a time; they share the graphs of a loader's batches.
CHUNK = 10


@dataclass(frozen=True)
class Estimate:
    """A number from random samples, with its error.

    Attributes
    ----------
    value : float
        The estimate.
    standard_error : float
        Standard deviation of ``value``; 0 for an exact number; nan from a single sample, which has no interval.
    samples : Tensor
        Shape ``(n,)``: the samples, in double precision on the CPU. Their mean is ``value``; for m-sharpness, their
        mean weighted by the sizes of the pieces.
    products : int
        Number of matrix-vector products, or of evaluations of the risk, taken.

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
        """Return the mean of independent samples as an estimate.

        Parameters
        ----------
        samples : Tensor
            Shape ``(n,)``.
        products : int
            Number of matrix-vector products that they took.
        """
        samples = samples.detach().double().cpu()
        n = samples.numel()
        error = float(samples.std()) / math.sqrt(n) if n > 1 else math.nan
        return cls(float(samples.mean()), error, samples, products)

    @classmethod
    def exactly(cls, value: float, products: int) -> Estimate:
        """Return a number without a random error as an estimate.

        Parameters
        ----------
        value : float
            The number.
        products : int
            Number of matrix-vector products that it took.
        """
        return cls(value, 0.0, torch.tensor([value], dtype=torch.float64), products)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the confidence interval of Student's t with ``n - 1`` degrees of freedom; its level is nominal.

        Parameters
        ----------
        level : float
            Probability that the interval holds the true number, between 0 and 1.

        Returns
        -------
        tuple of float
            The ends of the interval; both are ``value`` for an exact number.

        Raises
        ------
        ValueError
            If ``level`` is not between 0 and 1; for a single sample, which has a value but no error.
        ImportError
            Without SciPy, unless the number is exact.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        if self.standard_error == 0:
            return self.value, self.value
        n = self.samples.numel()
        if n < 2:
            raise ValueError(
                f"a single sample has a value but no interval; take {2 * self.products} products or more instead of "
                f"{self.products}: more probes, or smaller pieces for m-sharpness"
            )
        t = optional("scipy.stats", "a confidence interval").t
        half = float(t.ppf((1 + level) / 2, n - 1)) * self.standard_error
        return self.value - half, self.value + half

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.standard_error:.2g}"


def chunk_sizes(probes: int) -> Iterator[int]:
    """Yield how many of the probes to draw at a time."""
    for start in range(0, probes, CHUNK):
        yield min(CHUNK, probes - start)


def collect(
    chunks: Iterable[Tensor], probes: int, rtol: float | None, what: str, unit: str, progressbar: bool
) -> Tensor:
    """Collect samples until the source ends, or until their mean has the relative standard error ``rtol``.

    Parameters
    ----------
    chunks : iterable of Tensor
        The source, which yields samples ``(n, parts)`` in double precision on the CPU, ``probes`` of them in all; it
        is read no further than needed. ``rtol`` refers to the sum of a sample's parts.

    Returns
    -------
    Tensor
        Shape ``(samples, parts)``.

    Raises
    ------
    ValueError
        Before anything is drawn, if ``probes`` or ``rtol`` are not positive.
    """
    probes = as_integer("probes", probes, 1)
    if rtol is not None and not rtol > 0:
        raise ValueError(f"rtol must be positive, got {rtol}")
    samples: list[Tensor] = []
    with progress(show=progressbar, total=probes, desc=what, unit=unit) as bar:
        for chunk in chunks:
            samples.append(chunk)
            bar.update(len(chunk))
            if rtol is not None and _is_precise(torch.cat(samples).sum(1), rtol):
                break
    return torch.cat(samples)


def _is_precise(samples: Tensor, rtol: float) -> bool:
    if len(samples) < CHUNK:  # too few to judge by their spread
        return False
    return float(samples.std()) / math.sqrt(len(samples)) <= rtol * abs(float(samples.mean()))


def generator_of(seed: int | torch.Generator, device: torch.device) -> torch.Generator:
    """Return a generator on a device: a new one from a seed, or the given one."""
    if isinstance(seed, torch.Generator):
        if seed.device.type != device.type:
            raise ValueError(f"seed: the generator is on {seed.device}, but the operator is on {device}")
        return seed
    return own_generator(seed, device)
