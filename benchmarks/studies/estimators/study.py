"""The study of estimators: networks, measurements, report."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.runs.parallel import collect
from benchmarks.runs.results import Results
from benchmarks.studies.estimators.estimators import ESTIMATORS as NAMED
from benchmarks.studies.estimators.measurement import EXACT, KINKS, Measured, Measurement, measure
from benchmarks.studies.estimators.networks import NETWORKS, train_missing
from benchmarks.studies.estimators.report import report

__all__ = ["ESTIMATORS", "EstimatorsStudy"]


@dataclass(frozen=True)
class EstimatorsStudy:
    """Measures estimators on trained networks; what is measured is kept.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    """

    name: str
    summary: str

    def measurements(self) -> list[Measurement]:
        """All that is measured; PyHessian where it is installed, on plain weights."""
        peers = find_spec("pyhessian") is not None
        found = [Measurement(network, name, seeds=1) for network in NETWORKS for name in (EXACT, KINKS)]
        for network, run in NETWORKS.items():
            for name, named in NAMED.items():
                if named.riemannian or (peers and run.method == "sgd"):
                    found.append(Measurement(network, name))
        return found

    def run(self, directory: Path, jobs: int) -> str:
        """Train, measure what is missing, and report."""
        train_missing(directory)
        results = Results(directory / "measurements.jsonl", Measured)
        # each in a process of its own, for its peak memory
        rows = collect(self.measurements(), functools.partial(measure, directory=directory), results, jobs, fresh=True)
        return f"{report(rows, directory)}\n\nresults: {results.path}"


ESTIMATORS = EstimatorsStudy(
    name="estimators", summary="which estimator of trace and top eigenvalue to trust; half an hour on 2 cores"
)
