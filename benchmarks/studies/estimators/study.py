"""The study of estimators: networks, measurements, report."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.estimators.estimators import ESTIMATORS as NAMED
from benchmarks.studies.estimators.measurement import EXACT, KINKS, Measured, Measurement, measure
from benchmarks.studies.estimators.networks import NETWORKS, TINY, run_of, train_missing
from benchmarks.studies.estimators.report import report
from benchmarks.studies.study import ROWS, NothingToReport

__all__ = ["ESTIMATORS", "EstimatorsStudy"]


@dataclass(frozen=True)
class EstimatorsStudy:
    """Measures estimators on trained networks; what is measured is kept.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    networks : tuple of str
        See :mod:`benchmarks.studies.estimators.networks`.
    seeds : int
        Estimates of each estimator on each network.
    """

    name: str
    summary: str
    networks: tuple[str, ...] = tuple(NETWORKS)
    seeds: int = 20

    def measurements(self) -> list[Measurement]:
        """List all that is measured; PyHessian where it is installed, on plain weights."""
        peers = find_spec("pyhessian") is not None
        found = [Measurement(network, name, seeds=1) for network in self.networks for name in (EXACT, KINKS)]
        for network in self.networks:
            for name, named in NAMED.items():
                if named.riemannian or (peers and run_of(network).method == "sgd"):
                    found.append(Measurement(network, name, self.seeds))
        return found

    def run(self, directory: Path, workers: Workers) -> None:
        """Train and measure what is missing."""
        train_missing(self.networks, directory)
        # each in a process of its own, for its peak memory
        task = functools.partial(measure, directory=directory)
        collect(self.measurements(), task, self._results(directory), workers, fresh=True)

    def report(self, directory: Path) -> str:
        """Report, once all is measured."""
        wanted = self.measurements()
        found = self._results(directory).find(wanted)
        if len(found) < len(wanted):
            raise NothingToReport(f"{self._results(directory).path} has {len(found)} of {len(wanted)} measurements")
        return report([found[measurement] for measurement in wanted], directory)

    def quick(self) -> EstimatorsStudy:
        """Tiny networks and few seeds."""
        return replace(self, networks=tuple(TINY), seeds=3)

    def _results(self, directory: Path) -> Results[Measured]:
        return Results(directory / ROWS, Measured)


ESTIMATORS = EstimatorsStudy(
    name="estimators", summary="which estimator of trace and top eigenvalue to trust; half an hour on 2 cores"
)
