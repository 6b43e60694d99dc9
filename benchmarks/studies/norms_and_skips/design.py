"""The networks of the study: batch norm and shortcuts on and off, at two depths, paired by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.run import Run
from benchmarks.studies.norms_and_skips.training import Trajectory
from benchmarks.workloads.problem import Heldout
from benchmarks.workloads.residual import Residual

__all__ = ["VARIANTS", "Design", "Factor", "Variant"]

Factor = Literal["batch norm", "skips", "interaction"]


@dataclass(frozen=True)
class Variant:
    """Which parts a network has."""

    batch_norm: bool
    skip: bool

    @property
    def label(self) -> str:
        """For tables and figures."""
        parts = [name for name, there in (("batch norm", self.batch_norm), ("skips", self.skip)) if there]
        return " and ".join(parts) or "neither"


#: In the order in which they are shown.
VARIANTS = (Variant(True, True), Variant(True, False), Variant(False, True), Variant(False, False))


@dataclass(frozen=True)
class Design:
    """What is trained.

    Attributes
    ----------
    label, dataset : str
        The data set's name in tables, and for :mod:`benchmarks.data`.
    examples : int
        How many are trained on.
    depths : tuple of int
        Layers of the networks.
    width, stride : int
        See :class:`~benchmarks.workloads.networks.resnets.CifarResNet`. With a first stride of 2 maps have a quarter of
        the pixels of the CIFAR form: for the same time networks are twice as wide, and fit their images far better, or
        there would be no gap to speak of.
    batch_size, epochs : int
        Images of a step, and passes over the data.
    seeds : int
        Networks of each kind.
    rates : tuple of float
        Learning rates to choose from; one for all four variants of a depth.
    """

    label: str = "CIFAR-10 (JPEG), 10,000 images"
    dataset: str = "imagefolder:cifar10"
    examples: int = 10_000
    depths: tuple[int, ...] = (8, 14)
    width: int = 12
    stride: int = 2
    batch_size: int = 128
    epochs: int = 12
    seeds: int = 8
    rates: tuple[float, ...] = (0.02, 0.05, 0.1)

    #: Of the networks that a learning rate is chosen by.
    TRIAL_SEED = 100
    DECAY = 5e-4

    def run(self, depth: int, variant: Variant, seed: int, rate: float, heldout: Heldout = "test") -> Run:
        """Describe a network."""
        workload = Residual(
            self.dataset,
            self.examples,
            depth,
            variant.batch_norm,
            variant.skip,
            self.width,
            self.stride,
            self.batch_size,
        )
        return Run(workload, "sgd", seed, rate, self.epochs, weight_decay=self.DECAY, heldout=heldout)

    def trials(self, depth: int) -> dict[tuple[float, Variant], Run]:
        """Describe the networks that the learning rate of a depth is chosen by; none if there is one rate only."""
        if len(self.rates) == 1:
            return {}
        return {
            (rate, variant): self.run(depth, variant, self.TRIAL_SEED, rate, "validation")
            for rate in self.rates
            for variant in VARIANTS
        }

    def rate(self, depth: int, rows: Mapping[Run, Trajectory]) -> float | None:
        """Choose the learning rate at which the worst of the four variants is best on validation images.

        The lowest of equal ones; None while a trial is missing.
        """
        trials = self.trials(depth)
        if not set(trials.values()) <= rows.keys():
            return None

        def worst(rate: float) -> float:
            of_rate = [rows[run] for (tried, _), run in trials.items() if tried == rate]
            return min((0.0 if t.diverged else t.checkpoints[-1].scores["test_accuracy"] for t in of_rate), default=0.0)

        return max(sorted(self.rates), key=worst)

    def networks(self, depth: int, rate: float) -> dict[tuple[Variant, int], Run]:
        """Describe the networks of a depth, those of a seed one after the other."""
        return {(v, seed): self.run(depth, v, seed, rate) for seed in range(self.seeds) for v in VARIANTS}
