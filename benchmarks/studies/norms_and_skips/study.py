"""The study of batch norm and skip connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.data import load
from benchmarks.run import Run
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.norms_and_skips.design import Design
from benchmarks.studies.norms_and_skips.effects import Networks
from benchmarks.studies.norms_and_skips.report import report
from benchmarks.studies.norms_and_skips.training import Trajectory, follow
from benchmarks.studies.study import ROWS, NothingToReport, announce, cost, present
from benchmarks.workloads.residual import as_residual

__all__ = ["NormsAndSkipsStudy"]

#: Seconds of one core by depth, of a network that is measured all along with and without batch norm, and of one that a
#: learning rate is chosen by: for the hours that are printed.
_SECONDS = {8: (155, 106, 42), 14: (277, 220, 80)}


@dataclass(frozen=True)
class NormsAndSkipsStudy:
    """Trains residual networks with and without batch norm and shortcuts, and measures curvature on the way.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    design : Design
        Which networks.
    """

    name: str
    summary: str
    design: Design

    def run(self, directory: Path, workers: Workers) -> None:
        """Choose the learning rate of each depth, and train the networks that are missing at it."""
        if not present(self.design.label, partial(load, self.design.dataset)):
            return
        results = self._results(directory)
        trials = [run for depth in self.design.depths for run in self.design.trials(depth).values()]
        self._predict(results, trials)
        collect(trials, follow, results, workers)
        collect(self._networks(results.find(trials)), follow, results, workers)

    def report(self, directory: Path) -> str:
        """Report on the networks that are there."""
        results = self._results(directory)
        design = self.design
        trials = results.find(run for depth in design.depths for run in design.trials(depth).values())
        depths: dict[int, Networks] = {}
        for depth in design.depths:
            rate = design.rate(depth, trials)
            wanted = design.networks(depth, rate) if rate is not None else {}
            found = results.find(wanted.values())
            if found:
                depths[depth] = {key: found[run] for key, run in wanted.items() if run in found}
        if not depths:
            raise NothingToReport(f"{results.path} has no networks at a learning rate that was chosen")
        return report(design, depths, list(trials.values()), cost(results), directory)

    def quick(self) -> NormsAndSkipsStudy:
        """Shorten the study to tiny networks on images that come with it."""
        tiny = Design("Fashion-MNIST mini", "fashion_mnist_mini", 1_000, (8,), width=3, stride=4, rates=(0.05,))
        return NormsAndSkipsStudy(self.name, self.summary, replace(tiny, batch_size=20, epochs=4, seeds=2))

    def _networks(self, trials: Mapping[Run, Trajectory]) -> list[Run]:
        """List the networks at the chosen rates, those of a seed one after the other at all depths."""
        found = {
            (seed, depth, variant.label): run
            for depth in self.design.depths
            if (rate := self.design.rate(depth, trials)) is not None
            for (variant, seed), run in self.design.networks(depth, rate).items()
        }
        return [found[key] for key in sorted(found)]

    def _predict(self, results: Results[Trajectory], trials: Sequence[Run]) -> None:
        """Print how many hours are left; the networks do not yet have their learning rates, but take as long."""
        rows = results.find(trials)
        wanted = [run for run in trials if run not in rows]
        networks = self._networks(rows) if not wanted else []
        for depth in self.design.depths if wanted else ():
            networks += self.design.networks(depth, self.design.rates[0]).values()
        there = results.find(networks)
        announce([_seconds(run) for run in (*wanted, *networks) if run not in there])

    def _results(self, directory: Path) -> Results[Trajectory]:
        return Results(directory / ROWS, Trajectory)


def _seconds(run: Run) -> float:
    """Predict what a network takes."""
    workload = as_residual(run.workload)
    if workload.examples < Design.examples:  # quick
        return 20
    norm, plain, trial = _SECONDS[workload.depth]
    if run.heldout == "validation":
        return trial
    return norm if workload.batch_norm else plain
