"""The networks of the study: methods with their radii, at levels that differ from a centre in one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from benchmarks.run import Row, Run
from benchmarks.studies.comparison.cases import Score
from benchmarks.studies.one_rho.regret import Cell
from benchmarks.workloads.images import Kernels
from benchmarks.workloads.samples import Samples, as_samples

__all__ = ["AXES", "BASES", "CANDIDATES", "CENTRE", "Candidate", "Design", "Level", "levels", "points"]


@dataclass(frozen=True)
class Candidate:
    """Method with the radii to try.

    Attributes
    ----------
    name : str
        See :data:`benchmarks.methods.METHODS`.
    label : str
        For tables and figures.
    kernels : {"plain", "spheres"}
        Where its kernels live, which says what its base is.
    rhos : tuple of float
        From the smallest, each twice the one before.
    """

    name: str
    label: str
    kernels: Kernels
    rhos: tuple[float, ...]


def _doubling(first: float, number: int = 6) -> tuple[float, ...]:
    return tuple(first * 2**k for k in range(number))


#: Radii relative to the size of a layer, and angles of kernels.
_RELATIVE = _doubling(0.0075)
CANDIDATES = (
    Candidate("sam", "SAM", "plain", _doubling(0.025)),
    Candidate("asam", "ASAM", "plain", _doubling(0.125)),
    Candidate("layerwise_sam", "layerwise SAM", "plain", _RELATIVE),
    Candidate("rsam", "RSAM, one ball", "spheres", _doubling(0.025)),
    Candidate("rsam_kernels", "RSAM, one ball, kernels", "spheres", _doubling(0.05)),
    Candidate("rsam_parameter_kernels", "RSAM, per parameter, kernels", "spheres", _doubling(0.02)),
    Candidate("rsam_point", "RSAM, per point", "spheres", _RELATIVE),
    Candidate("rsam_angle", "RSAM, per point, kernels", "spheres", _RELATIVE),
)
#: Without an ascent, by where kernels live; one of the methods that may be best at a level.
BASES: Mapping[Kernels, str] = {"plain": "sgd", "spheres": "riemannian_sgd"}

#: What is varied, and how far; width, learning rate and epochs as factors.
AXES: Mapping[str, tuple[float, ...]] = {
    "wrong labels": (0.0, 0.1, 0.4),
    "decay": (0.0, 0.005, 0.05),
    "learning rate": (1 / 3, 3.0),
    "width": (0.5, 2.0, 4.0),
    "depth": (2, 6),
    "epochs": (0.5, 2.0, 4.0),
    "batch": (16, 256),
}


@dataclass(frozen=True)
class Level:
    """Value of an axis; all else is as at the centre."""

    axis: str
    value: float = 1.0

    @property
    def label(self) -> str:
        """For tables and figures."""
        if self.axis == "wrong labels":
            return f"{self.value:.0%} wrong labels".replace("%", " %")
        if self.axis in ("learning rate", "width", "epochs"):
            return f"{self.axis} × {self.value:.2g}"
        return self.axis if self == CENTRE else f"{self.axis} {self.value:g}"

    def move(self, run: Run) -> Run:
        """Describe a run of the centre at this level."""
        workload = as_samples(run.workload)
        match self.axis:
            case "wrong labels":
                return replace(run, workload=replace(workload, label_noise=self.value))
            case "decay":
                return replace(run, weight_decay=self.value)
            case "learning rate":
                return replace(run, lr=self.value * run.lr)
            case "width":
                return replace(run, workload=replace(workload, width=self.value * workload.width))
            case "depth":
                return replace(run, workload=replace(workload, depth=int(self.value)))
            case "epochs":
                return replace(run, epochs=round(self.value * run.epochs))
            case "batch":
                return replace(run, workload=replace(workload, batch_size=int(self.value)))
        return run


CENTRE = Level("centre")


def levels(axes: Mapping[str, tuple[float, ...]]) -> tuple[Level, ...]:
    """List the centre and all values of axes."""
    return (CENTRE, *(Level(axis, value) for axis, values in axes.items() for value in values))


@dataclass(frozen=True)
class Design:
    """A data set, the levels that networks are trained at, and the radii that are tried there.

    Attributes
    ----------
    label, dataset : str
        The data set's name in tables, and for :mod:`benchmarks.data`.
    levels : tuple of Level
        The centre among them.
    rhos : mapping of str to tuple of float
        Radii by the names of :data:`CANDIDATES`; methods that are not there are not trained.
    examples, epochs, width, label_noise, weight_decay
        Of the centre, see :class:`~benchmarks.workloads.samples.Samples`.
    seeds : tuple of int
        Of all networks.
    further : tuple of int
        Of networks at the levels that decide; none where nothing is decided.
    rates : tuple of float
        Learning rates, of which each base has its own.
    """

    label: str
    dataset: str
    levels: tuple[Level, ...]
    rhos: Mapping[str, tuple[float, ...]]
    examples: int = 1_000
    epochs: int = 15
    width: float = 0.75
    label_noise: float = 0.2
    weight_decay: float = 5e-4
    seeds: tuple[int, ...] = (0, 1)
    further: tuple[int, ...] = ()
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)

    #: Of the networks that learning rates are chosen by.
    TRIAL_SEEDS = (1000, 1001)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Methods that are trained."""
        return tuple(c for c in CANDIDATES if c.name in self.rhos)

    @property
    def cells(self) -> list[tuple[str, Kernels, float]]:
        """Method, kernels and rho of every network of a level: those without an ascent first."""
        bases = [(BASES[kernels], kernels, 0.0) for kernels in BASES if kernels in {c.kernels for c in self.candidates}]
        return bases + [(c.name, c.kernels, rho) for c in self.candidates for rho in self.rhos[c.name]]

    def run(self, level: Level, method: str, kernels: Kernels, rho: float, rate: float, seed: int) -> Run:
        """Describe a network, which is scored on validation examples."""
        workload = Samples(self.dataset, self.examples, self.label_noise, kernels=kernels, width=self.width)
        decay = self.weight_decay
        return level.move(Run(workload, method, seed, rate, self.epochs, rho, weight_decay=decay, heldout="validation"))

    def trials(self) -> dict[tuple[Kernels, float, int], Run]:
        """Describe the networks without an ascent that learning rates are chosen by, at the centre."""
        return {
            (kernels, rate, seed): self.run(CENTRE, method, kernels, 0.0, rate, seed)
            for method, kernels, rho in self.cells
            if rho == 0
            for rate in self.rates
            for seed in self.TRIAL_SEEDS
        }

    def own_rates(self, rows: Mapping[Run, Row]) -> dict[Kernels, float]:
        """Choose the best learning rate of each base, the lowest of equal ones; nothing while a trial is missing."""
        trials = self.trials()
        if not set(trials.values()) <= rows.keys():
            return {}

        def score(kernels: Kernels, rate: float) -> float:
            return fmean(points(rows[trials[kernels, rate, seed]]) for seed in self.TRIAL_SEEDS)

        return {
            kernels: max(sorted(self.rates), key=lambda rate, kernels=kernels: score(kernels, rate))  # type: ignore[misc]
            for kernels in {kernels for kernels, *_ in trials}
        }

    def networks(
        self,
        rates: Mapping[Kernels, float],
        cells: Mapping[Level, Sequence[Cell]] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> dict[tuple[Level, Cell, int], Run]:
        """Describe networks at levels, those of a seed and level one after the other.

        Parameters
        ----------
        rates : mapping
            Learning rate of each base.
        cells : mapping of Level to sequence of Cell, optional
            Which methods and radii; by default all of them at all levels.
        seeds : sequence of int, optional
            By default :attr:`seeds`.
        """
        return {
            (level, (method, rho), seed): self.run(level, method, kernels, rho, rates[kernels], seed)
            for seed in (self.seeds if seeds is None else seeds)
            for level in self.levels
            for method, kernels, rho in self.cells
            if cells is None or (method, rho) in cells.get(level, ())
        }


def points(row: Row) -> float:
    """Return validation accuracy in points; of a network that diverged, that of guessing among ten classes."""
    return Score(worst=0.1).of(row)
