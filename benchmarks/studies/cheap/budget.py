"""Predict how long the study takes, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.run import Row, Run
from benchmarks.runs.results import Results
from benchmarks.studies.cheap.alignment import Alignment, Cosines
from benchmarks.studies.cheap.contest import Case, Plan, compete, timings
from benchmarks.studies.cheap.timing import STEPS, Times
from benchmarks.studies.cheap.variants import evaluations
from benchmarks.studies.comparison.contest import noting, random_score, stand_in
from benchmarks.studies.costs import seconds
from benchmarks.workloads.samples import as_samples

__all__ = ["outstanding", "predict"]


def predict(
    cases: Sequence[Case], plan: Plan, rows: Results[Row], cosines: Results[Cosines], times: Results[Times]
) -> list[float]:
    """Predict the seconds of one core of each network that is missing, and of each measurement of processor time.

    Parameters
    ----------
    cases : sequence of Case
        The cases.
    plan : Plan
        Seeds, and values of rho.
    rows, cosines, times : Results
        What is there.
    """
    timed = [timing for case in cases for timing in timings(case, plan).values()]
    there = times.find(timed)
    steps = [sum((plan.blocks + 1) * STEPS * _step(run) for run in t.runs) for t in timed if t not in there]
    return [*map(_network, outstanding(cases, plan, rows, cosines)), *steps]


def outstanding(cases: Sequence[Case], plan: Plan, rows: Results[Row], cosines: Results[Cosines]) -> list[Run]:
    """List the networks that are missing; where they are not decided yet, others that take at least as long."""
    lacking: list[Run] = []

    def cosines_of(alignments: Sequence[Alignment]) -> list[Cosines]:
        found = cosines.find(alignments)
        lacking.extend(alignment.run for alignment in alignments if alignment not in found)
        return [found.get(a) or Cosines(a, [[1.0] * len(a.parts)], 0.0) for a in alignments]

    compete(cases, plan, noting(lacking, rows.find, _random), cosines_of)
    return lacking


def _random(run: Run) -> Row:
    """Make a row whose accuracy is so random that the test seems to need all seeds that it may have."""
    return replace(stand_in(run), diverged=False, scores={"accuracy": random_score(run)}, gradients=1.0)


def _network(run: Run) -> float:
    """Predict the seconds of a network from those that it would take without an ascent."""
    base = "sgd" if as_samples(run.workload).kernels == "plain" else "riemannian_sgd"
    return evaluations(run) * seconds(replace(run, method=base))


def _step(run: Run) -> float:
    samples = as_samples(run.workload)
    return _network(run) / (run.epochs * (samples.examples // samples.batch_size))
