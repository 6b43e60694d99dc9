"""The spectral density of an operator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from curvlinops import lanczos_approximate_spectrum
from torch import Tensor
from tqdm import trange

from rsam.curvature.eigenvalues import top_eigenvalues
from rsam.curvature.estimate import generator_of
from rsam.curvature.linear import LinearOperator
from rsam.curvature.operator import one_call
from rsam.evaluation import isolated
from rsam.evaluation.random_state import seed_random_state

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SpectralDensity", "spectral_density"]


@dataclass(frozen=True)
class SpectralDensity:
    """How the eigenvalues of an operator are distributed, smoothed.

    Attributes
    ----------
    grid : Tensor
        Shape ``(n,)``: where the density is known.
    density : Tensor
        Shape ``(n,)``: mean over the repeats; its integral is 1, or less with so few steps that the bumps at the ends
        reach beyond the grid (0.9 at ten steps of a spectrum that has most of itself at one end).
    standard_error : Tensor
        Shape ``(n,)``: of that mean; nan from a single repeat.
    """

    grid: Tensor
    density: Tensor
    standard_error: Tensor

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the density on a logarithmic axis, with a band of two standard errors.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; on new axes by default.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        if ax is None:
            try:
                from matplotlib.figure import Figure
            except ImportError as error:
                raise ImportError("plotting needs matplotlib: pip install matplotlib") from error
            ax = Figure(layout="constrained").subplots()
        floor = float(self.density.max()) * 1e-6  # Gaussian tails beyond say nothing
        grid, density, spread = (t.double().cpu().numpy() for t in (self.grid, self.density, 2 * self.standard_error))
        ax.semilogy(grid, density.clip(floor))
        ax.fill_between(grid, (density - spread).clip(floor), (density + spread).clip(floor), alpha=0.3, lw=0)
        ax.set_ylim(bottom=floor)
        ax.set_xlabel("eigenvalue")
        ax.set_ylabel("density")
        return ax


def spectral_density(
    operator: LinearOperator,
    steps: int = 50,
    *,
    repeats: int = 5,
    points: int = 1024,
    kappa: float = 3.0,
    margin: float = 0.05,
    seed: int | torch.Generator = 0,
    progressbar: bool = False,
) -> SpectralDensity:
    """Density of eigenvalues by Lanczos quadrature (Papyan 2020, Alg. 2).

    By :func:`curvlinops.lanczos_approximate_spectrum`, with an error.

    Parameters
    ----------
    operator : LinearOperator, or an operator of curvlinops
        Square and symmetric, such as a :class:`RiemannianHessian`.
    steps : int
        Lanczos steps, that is products, of each repeat; less than the operator's size.
    repeats : int
        Random first vectors to average over.
    points : int
        Resolution.
    kappa : float
        Width of the bumps that stand for eigenvalues, greater than 1.
    margin : float
        How much of the spectrum's width is added at both ends.
    seed : int or torch.Generator
        Source of the first vectors.
    progressbar : bool
        Show one over the repeats.

    Returns
    -------
    SpectralDensity

    Raises
    ------
    ValueError
        If ``steps`` is not less than the operator's size, or ``repeats`` less than 1.
    RuntimeError
        If the Lanczos process breaks down, as it does where an operator has fewer different eigenvalues than steps.

    Examples
    --------
    >>> import torch, rsam
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(30, 1, bias=False)
    >>> data = torch.randn(100, 30), torch.zeros(100, 1)
    >>> hessian = rsam.curvature.RiemannianHessian(model, torch.nn.MSELoss(), model.parameters(), data)
    >>> spectrum = rsam.curvature.spectral_density(hessian, steps=10)
    >>> bool((torch.trapezoid(spectrum.density, spectrum.grid) - 1).abs() < 0.05)
    True
    """
    if not 2 <= steps < operator.shape[0]:
        raise ValueError(f"steps must be from 2 to less than the operator's size {operator.shape[0]}, got {steps}")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    with one_call(operator):
        return _quadrature(operator, steps, repeats, points, kappa, margin, seed, progressbar)


def _quadrature(
    operator: LinearOperator,
    steps: int,
    repeats: int,
    points: int,
    kappa: float,
    margin: float,
    seed: int | torch.Generator,
    progressbar: bool,
) -> SpectralDensity:
    # a hundredth is enough for the ends, which have a margin
    ends = [top_eigenvalues(operator, which=which, rtol=1e-2, seed=seed).values[0] for which in ("smallest", "largest")]
    boundaries = float(ends[0]), float(ends[1])
    seeds = torch.randint(
        2**31, (repeats,), device=operator.device, generator=generator_of(seed, operator.device)
    ).tolist()
    densities = []
    for i in trange(repeats, desc="spectral density", disable=not progressbar):
        broken = RuntimeError(f"the Lanczos process broke down within {steps} steps; take fewer steps")
        with isolated():  # curvlinops draws from the global generator
            seed_random_state(seeds[i])
            try:
                grid, density = lanczos_approximate_spectrum(
                    operator, steps, num_points=points, kappa=kappa, boundaries=boundaries, margin=margin
                )
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
                raise broken from error
        if not torch.isfinite(density).all():
            raise broken
        densities.append(density)
    stacked = torch.stack(densities)
    spread = stacked.std(0) if repeats > 1 else torch.full_like(grid, math.nan)
    return SpectralDensity(grid, stacked.mean(0), spread / repeats**0.5)
