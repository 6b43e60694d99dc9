"""Run the study of estimators: train networks, measure, report."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.estimators.estimators import ESTIMATORS as NAMED
from benchmarks.studies.estimators.measurement import EXACT, INTERVALS, KINKS, Measured, Measurement, measure
from benchmarks.studies.estimators.networks import NETWORKS, TINY, run_of, train_missing
from benchmarks.studies.estimators.report import report
from benchmarks.studies.study import ROWS, NothingToReport

__all__ = ["ESTIMATORS", "EstimatorsStudy"]


@dataclass(frozen=True)
class EstimatorsStudy:
    """Study that measures estimators on trained networks, and keeps each measurement.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    networks : tuple of str
        See :mod:`benchmarks.studies.estimators.networks`.
    seeds : int
        Number of estimates by each estimator on each network.
    intervals : int
        Number of intervals by each estimator that has them.
    """

    name: str
    summary: str
    networks: tuple[str, ...] = tuple(NETWORKS)
    seeds: int = 20
    intervals: int = 200

    def measurements(self) -> list[Measurement]:
        """List all measurements; PyHessian's only if it is installed, and on plain weights only."""
        peers = find_spec("pyhessian") is not None
        measurements = [Measurement(network, name, seeds=1) for network in self.networks for name in (EXACT, KINKS)]
        for network in self.networks:
            for name, named in NAMED.items():
                if named.riemannian or (peers and run_of(network).method == "sgd"):
                    measurements.append(Measurement(network, name, self.seeds))
            measurements += [Measurement(network, name, self.intervals) for name in INTERVALS]
        return measurements

    def run(self, directory: Path, workers: Workers) -> None:
        """Train missing networks, and make missing measurements."""
        train_missing(self.networks, directory)
        # each in a process of its own, to measure its peak memory
        task = functools.partial(measure, directory=directory)
        collect(self.measurements(), task, self._results(directory), workers, fresh=True)

    def report(self, directory: Path) -> str:
        """Report if all measurements are there."""
        wanted = self.measurements()
        rows = self._results(directory).find(wanted)
        if len(rows) < len(wanted):
            raise NothingToReport(f"{self._results(directory).path} has {len(rows)} of {len(wanted)} measurements")
        return report([rows[measurement] for measurement in wanted], directory)

    def quick(self) -> EstimatorsStudy:
        """Shorten the study to tiny networks and few seeds."""
        return replace(self, networks=tuple(TINY), seeds=3, intervals=20)

    def _results(self, directory: Path) -> Results[Measured]:
        return Results(directory / ROWS, Measured)


ESTIMATORS = EstimatorsStudy(
    name="estimators", summary="which estimator of trace and top eigenvalue to trust; half an hour on 2 cores"
)
