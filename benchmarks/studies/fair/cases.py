"""Define the cases."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.run import Run
from benchmarks.studies.comparison.cases import Case, Score
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.fair.contestants import CONTESTANTS
from benchmarks.workloads.samples import Samples, as_samples

__all__ = ["CASES", "PROTOCOL", "QUICK_CASES", "QUICK_PROTOCOL", "QUICK_READ", "READ", "SCORE", "Read"]

PROTOCOL = Protocol(first=(1000,), kept=8, second=(1001, 1002), final=tuple(range(12)), best=3, rounds=1)
QUICK_PROTOCOL = Protocol(first=(1000,), kept=2, second=(1001,), final=(0, 1), best=2, rounds=1)

#: Test accuracy; that of guessing among ten classes if a network diverged, wherever its last weights were.
SCORE = Score(worst=0.1)


def _case(name: str, label: str, workload: Samples, epochs: int = 25) -> Case:
    return Case(name, label, Run(workload, "", 0, 0.0, epochs), tuple(CONTESTANTS.values()), SCORE)


CASES = (
    _case("cifar10", "CIFAR-10 (JPEG)", Samples("imagefolder:cifar10")),
    _case("cifar10_noise20", "CIFAR-10 (JPEG), 20 % wrong labels", Samples("imagefolder:cifar10", label_noise=0.2)),
    _case("fashion_mnist_noise20", "Fashion-MNIST, 20 % wrong labels", Samples("fashion_mnist", label_noise=0.2)),
    _case("mnist1d", "MNIST-1D", Samples("mnist1d_anew", examples=4_000, batch_size=100)),
)
QUICK_CASES = (
    _case("cifar10", "digits", Samples("digits", examples=256), 2).quick(),
    _case("mini_noise20", "Fashion-MNIST mini, 20 % wrong labels", Samples("fashion_mnist_mini", 256, 0.2), 1).quick(),
)


@dataclass(frozen=True)
class Read:
    """More training examples, on which the recommended variant is read once, at settings chosen with fewer.

    Attributes
    ----------
    case : str
        Name of the case whose chosen settings are read.
    examples : int
        Training examples of each seed.
    seeds : tuple of int
        Seeds.
    """

    case: str
    examples: int
    seeds: tuple[int, ...]

    def run(self, setting: Run, seed: int) -> Run:
        """Move a setting of the case to these examples."""
        return replace(setting, workload=replace(as_samples(setting.workload), examples=self.examples), seed=seed)


READ = Read("cifar10", 10_000, tuple(range(5)))
QUICK_READ = Read("cifar10", 512, (0, 1))
