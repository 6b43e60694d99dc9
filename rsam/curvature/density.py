"""Estimate the spectral density of an operator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Normal

from rsam.curvature.eigenvalues import top_eigenvalues
from rsam.curvature.estimate import generator_of
from rsam.curvature.linear import LinearOperator
from rsam.curvature.operator import one_call
from rsam.evaluation.optional import optional, progress
from rsam.evaluation.parameters import as_integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SpectralDensity", "spectral_density"]


@dataclass(frozen=True)
class SpectralDensity:
    """Smoothed distribution of the eigenvalues of an operator.

    Attributes
    ----------
    grid : Tensor
        Shape ``(n,)``: eigenvalues at which the density is given.
    density : Tensor
        Shape ``(n,)``: mean over the repeats. Its integral is 1, or less with so few steps that the bumps at the ends
        reach beyond the grid (0.9 at ten steps of a spectrum that lies mostly at one end).
    standard_error : Tensor
        Shape ``(n,)``: standard error of that mean; nan from a single repeat.

    Examples
    --------
    A spectrum from elsewhere, drawn as :func:`spectral_density`'s are:

    >>> import torch, rsam
    >>> grid = torch.linspace(-3, 3, 100)
    >>> normal = torch.exp(torch.distributions.Normal(0, 1).log_prob(grid))
    >>> axes = rsam.curvature.SpectralDensity(grid, normal, torch.zeros(100)).plot()
    >>> axes.get_xlabel(), axes.get_yscale()
    ('eigenvalue', 'log')
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
            Where it was drawn; ``axes.figure`` is the figure.

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        if ax is None:
            ax = optional("matplotlib.figure", "plotting").Figure(layout="constrained").subplots()
        floor = float(self.density.max()) * 1e-6  # densities below it are Gaussian tails without a meaning
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
    """Estimate the density of eigenvalues with its error, by Lanczos quadrature.

    This is Algorithm 2 of Papyan 2020, repeated from several random vectors.

    Parameters
    ----------
    operator : LinearOperator, or an operator of curvlinops
        Square and symmetric, such as a :class:`RiemannianHessian`.
    steps : int
        Lanczos steps, that is products, of each repeat; less than the operator's size.
    repeats : int
        Random first vectors to average over.
    points : int
        Number of points of the grid, at least 2.
    kappa : float
        Width of the bumps that stand for eigenvalues, greater than 1.
    margin : float
        Fraction of the spectrum's width that is added at both ends, not negative.
    seed : int or torch.Generator
        Source of the first vectors.
    progressbar : bool
        Show a bar over the repeats.

    Returns
    -------
    SpectralDensity
        Density and standard error on a grid over the spectrum.

    Raises
    ------
    ValueError
        If ``steps`` is less than 2 or not less than the operator's size; for bad ``repeats``, ``points``, ``kappa`` or
        ``margin``.
    RuntimeError
        If all eigenvalues are equal up to rounding, such as zero, so that there is no density. If the Lanczos process
        breaks down, as it may if the operator has fewer different eigenvalues than steps. As :func:`top_eigenvalues`,
        which finds the ends of the spectrum.
    ImportError
        Without SciPy, for an operator of more than 20 columns.

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
    steps, repeats = as_integer("steps", steps), as_integer("repeats", repeats, 1)
    points = as_integer("points", points, 2)
    if not 2 <= steps < operator.shape[0]:
        raise ValueError(f"steps must be from 2 to less than the operator's size {operator.shape[0]}, got {steps}")
    if not 1 < kappa < math.inf:
        raise ValueError(f"kappa must be greater than 1 and finite, got {kappa}")
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be finite and not negative, got {margin}")
    with one_call(operator):
        # a relative error of a hundredth is enough for the ends, which get a margin
        low, high = (
            float(top_eigenvalues(operator, which=end, rtol=1e-2, seed=seed).values[0])
            for end in ("smallest", "largest")
        )
        # a hundred roundings: bumps as wide as these would be a picture of rounding alone
        if high - low <= 100 * torch.finfo(operator.dtype).eps * max(abs(low), abs(high)):
            raise RuntimeError(
                f"all eigenvalues are {high:.6g} up to rounding, so that there is no density to estimate"
            )
        padding = margin * (high - low)
        low, high = low - padding, high + padding
        generators = _generators(operator, repeats, seed)
        densities = []
        for generator in progress(generators, show=progressbar, desc="spectral density"):
            tridiagonal = _lanczos(operator, steps, generator)
            densities.append(_smoothed(tridiagonal, low, high, points, kappa))
            if not torch.isfinite(densities[-1]).all():
                raise RuntimeError(f"the Lanczos process broke down within {steps} steps; take fewer steps")
    stacked = torch.stack(densities)
    spread = stacked.std(0) if repeats > 1 else torch.full_like(stacked[0], math.nan)
    grid = torch.linspace(low, high, points, dtype=stacked.dtype, device=stacked.device)
    return SpectralDensity(grid, stacked.mean(0), spread / repeats**0.5)


def _generators(operator: LinearOperator, repeats: int, seed: int | torch.Generator) -> list[torch.Generator]:
    """Return one source of a first vector for each repeat, so that each may be drawn alone."""
    device = operator.device
    seeds = torch.randint(2**31, (repeats,), device=device, generator=generator_of(seed, device))
    return [torch.Generator(device).manual_seed(s) for s in seeds.tolist()]


def _lanczos(operator: LinearOperator, steps: int, generator: torch.Generator) -> Tensor:
    """Return the tridiagonal matrix of Lanczos steps from a random vector, without reorthogonalisation."""
    size, dtype, device = operator.shape[1], operator.dtype, operator.device
    v = torch.randn(size, dtype=dtype, device=device, generator=generator)
    v = v / torch.linalg.vector_norm(v)
    previous, beta = torch.zeros_like(v), torch.zeros((), dtype=dtype, device=device)
    alphas, betas = [], []
    for _ in range(steps):
        following = operator @ v - beta * previous
        alphas.append((following * v).sum())
        following = following - alphas[-1] * v
        # in double precision, in which the squares of small and large numbers neither vanish nor overflow
        beta = torch.linalg.vector_norm(following.double()).to(dtype)
        betas.append(beta)
        previous, v = v, following / beta
    off_diagonal = torch.stack(betas[:-1])
    return torch.stack(alphas).diag() + off_diagonal.diag(1) + off_diagonal.diag(-1)


def _smoothed(tridiagonal: Tensor, low: float, high: float, points: int, kappa: float) -> Tensor:
    """Return the density of a Lanczos process on a grid, each node as a normal bump; nan if the process broke down."""
    if not torch.isfinite(tridiagonal).all():
        return tridiagonal.new_full((points,), math.nan)
    values, vectors = torch.linalg.eigh(tridiagonal)
    centre, radius = (high + low) / 2, (high - low) / 2
    nodes, weights = (values - centre) / radius, vectors[0] ** 2 / radius  # of the spectrum scaled to [-1, 1]
    width = 2 / (len(values) - 1) / math.sqrt(8 * math.log(kappa))
    grid = torch.linspace(-1, 1, points, dtype=values.dtype, device=values.device)
    bumps: Tensor = Normal(nodes.unsqueeze(1), width, validate_args=False).log_prob(grid).exp()
    density: Tensor = (weights.unsqueeze(1) * bumps).sum(0)
    return density
