"""The cases of the study, and the settings that are tried in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from scipy.stats import qmc

from benchmarks.run import Knob, Run
from benchmarks.runs.measurement import FIFTHS
from benchmarks.studies.comparison.sampling import Range, Sample
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.constrained.rules import KERNELS, RECOMMENDED, TRIALS
from benchmarks.workloads.images import Kernels
from benchmarks.workloads.samples import Samples, as_samples

__all__ = ["ASCENT", "BASE", "Case", "Design"]

#: Methods by name: the ascent, and what has to do without.
ASCENT, BASE = "rsam", "riemannian_sgd"
_RATES = Range(Knob.LR, 0.003, 0.3), Range(Knob.KERNEL_RATE, 1.0, 10.0)
_DECAY = Range(Knob.WEIGHT_DECAY, 5e-4, 0.1, natural=True)
#: Whole RSAM collapses at larger ones; an ascent from a part of the batch bears about twice as much.
_WHOLE, _CHEAP = Range(Knob.RHO, 0.0125, 0.4, natural=True), Range(Knob.RHO, 0.025, 0.8, natural=True)
#: Ranges of remedies that are used in half of the settings, and the seed of the numbers that they are drawn by, with
#: which a remedy is used about as often in the lower half of every other range as in the upper one.
_SMOOTHING, _DROPOUT, _SEED = (0.05, 0.2), (0.1, 0.5), 8
_PROTOCOL = Protocol(kept=3, second=(1001, 1002), final=tuple(range(8)), best=2)


@dataclass(frozen=True)
class Case:
    """Data set, part of wrong labels, and manifold of the kernels."""

    dataset: str
    label_noise: float
    kernels: Kernels

    @property
    def label(self) -> str:
        """For messages and tables."""
        return f"{self.dataset}, {100 * self.label_noise:.0f} % wrong labels, {KERNELS[self.kernels]}"


@dataclass(frozen=True)
class Design:
    """What is trained.

    Attributes
    ----------
    datasets : dict of str to str
        Names for :mod:`benchmarks.data`, by label.
    label_noise : tuple of float
        Parts of wrong labels.
    examples, epochs : int
        Training images, and epochs without the remedy of twice as many.
    trials : int
        Settings of each method.
    protocol : Protocol
        Seeds, and how many settings go on.
    recommended : dict
        See :data:`~benchmarks.studies.constrained.rules.RECOMMENDED`.
    """

    datasets: dict[str, str] = field(
        default_factory=lambda: {"CIFAR-10 (JPEG)": "imagefolder:cifar10", "Fashion-MNIST": "fashion_mnist"}
    )
    label_noise: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    examples: int = 2_000
    epochs: int = 18
    trials: int = TRIALS
    protocol: Protocol = _PROTOCOL
    recommended: dict[str, Any] = field(default_factory=lambda: dict(RECOMMENDED))

    def cases(self, present: Sequence[str]) -> list[Case]:
        """List the cases on data sets that are there, by their labels."""
        kinds: tuple[Kernels, ...] = ("spheres", "stiefel")
        assert set(kinds) == set(KERNELS)
        return [Case(label, noise, k) for label in present for noise in self.label_noise for k in kinds]

    def settings(self, case: Case) -> dict[str, list[Run]]:
        """List the settings of both methods, which are the same apart from the ascent."""
        workload = Samples(self.datasets[case.dataset], self.examples, case.label_noise, kernels=case.kernels)
        base = Run(workload, BASE, 0, 0.0, self.epochs, measures=(FIFTHS,))
        options: dict[str, Any] = {"method": ASCENT, **self.recommended}
        ascent = replace(base, **options)
        of_base = Sample.of(*_RATES, _DECAY, number=self.trials).settings(base)
        of_ascent = Sample.of(*_RATES, _DECAY, self._rho, number=self.trials).settings(ascent)
        remedies = _remedies(self.trials)
        # whole RSAM does not train twice as long
        of_rsam = [(smoothing, dropout, u if self.recommended else 0.0) for smoothing, dropout, u in remedies]
        return {
            BASE: [_with_remedies(run, *u) for run, u in zip(of_base, remedies, strict=True)],
            ASCENT: [_with_remedies(run, *u) for run, u in zip(of_ascent, of_rsam, strict=True)],
        }

    @property
    def _rho(self) -> Range:
        return _CHEAP if self.recommended else _WHOLE

    def trial(self, setting: Run, seed: int) -> Run:
        """Describe a network that settings are chosen by."""
        return replace(setting, seed=seed, heldout="validation")

    def without_ascent(self, setting: Run) -> Run:
        """Describe the base optimizer at a setting of RSAM."""
        defaults: dict[str, Any] = {f.name: f.default for f in fields(Run) if f.name in self.recommended}
        return replace(setting, **{**defaults, "method": BASE, "rho": 0.0})

    def with_ascent(self, setting: Run, rho: float) -> Run:
        """Describe RSAM at a setting of the base optimizer."""
        options: dict[str, Any] = {"method": ASCENT, **self.recommended, "rho": rho}
        return replace(setting, **options)

    def ends(self, setting: Run) -> list[str]:
        """Name the knobs that lie at an end of their ranges that is not a natural one."""
        ranges = (*_RATES, _DECAY, *((self._rho,) if setting.method != BASE else ()))
        return [knob.label for knob, _ in Sample.of(*ranges, number=self.trials).ends(setting)]


def _remedies(number: int) -> list[tuple[float, float, float]]:
    """Draw numbers in [0, 1) for smoothing, dropout and epochs, evenly spread."""
    random = np.random.default_rng(_SEED)
    points = qmc.Sobol(3, rng=random).random_base2((number - 1).bit_length())
    # first coordinates of all Sobol points, scrambled or not, lie in the upper half at every second number: without an
    # order of their own, smoothing would be tried at high learning rates only, and dropout with little decay
    return [(float(a), float(b), float(c)) for a, b, c in random.permutation(points)[:number]]


def _with_remedies(run: Run, smoothing: float, dropout: float, epochs: float) -> Run:
    workload = replace(
        as_samples(run.workload), label_smoothing=_part(smoothing, *_SMOOTHING), dropout=_part(dropout, *_DROPOUT)
    )
    return replace(run, workload=workload, epochs=run.epochs * (2 if epochs >= 0.5 else 1))


def _part(u: float, low: float, high: float) -> float:
    """Return nothing for the lower half of numbers, and values of a range for the upper half."""
    return 0.0 if u < 0.5 else round(low + (2 * u - 1) * (high - low), 3)
