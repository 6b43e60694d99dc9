"""That the study of estimators measures what it claims to measure, and reports it correctly."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import rsam
from benchmarks.runs.results import Results
from benchmarks.studies.estimators import ESTIMATORS, networks
from benchmarks.studies.estimators import estimators as named
from benchmarks.studies.estimators import measurement as measuring
from benchmarks.studies.estimators.measurement import EXACT, INTERVALS, KINKS, Measured, Measurement, measure
from benchmarks.studies.estimators.report import report
from benchmarks.studies.study import NothingToReport
from tests.benchmarks.training_steps import on


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(monkeypatch, directory) -> Path:
    """Train the networks for a single short epoch, on few examples, unless another test has."""
    few = {name: replace(on(run, batch_size=500), epochs=1) for name, run in networks.NETWORKS.items()}
    monkeypatch.setattr(networks, "NETWORKS", few)
    monkeypatch.setattr(networks, "_EXAMPLES", 16)
    networks.train_missing(few, directory)
    return directory


def test_that_networks_are_trained_once_and_lie_on_their_manifolds(trained) -> None:
    files = sorted(trained.iterdir())
    times = [file.stat().st_mtime_ns for file in files]
    networks.train_missing(networks.NETWORKS, trained)
    assert len(files) == 4 and [file.stat().st_mtime_ns for file in files] == times
    model = networks.load("spheres, GELU", trained, torch.float64)
    kernel = model[0].weight
    torch.testing.assert_close(kernel.flatten(1).norm(dim=1), torch.ones(16, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("network", ["plain, ReLU", "spheres, GELU"])
def test_that_estimates_surround_the_exact_trace(trained, monkeypatch, network) -> None:
    # the exact trace, column by column, would take long; this many probes are right to a few per cent
    monkeypatch.setattr(measuring, "_exact", lambda problem: [float(rsam.curvature.trace(problem.hessian(), 150))])
    (truth,) = measure(Measurement(network, EXACT, seeds=1), trained).values
    for estimator in ("Hutchinson, Rademacher", "XTrace", "PyHessian"):
        if not named.ESTIMATORS[estimator].riemannian and network.startswith("spheres"):
            continue
        values = measure(Measurement(network, estimator, seeds=6), trained).values
        mean, error = sum(values) / 6, (sum((v - sum(values) / 6) ** 2 for v in values) / 30) ** 0.5
        assert abs(mean - truth) < 5 * error + 0.1 * abs(truth), estimator


@pytest.mark.parametrize("estimator", INTERVALS)
def test_that_intervals_are_those_of_the_estimator(trained, estimator) -> None:
    ends = measure(Measurement("spheres, GELU", estimator, seeds=4), trained).values
    name = {"intervals, Hutchinson": "Hutchinson, Rademacher", "intervals, XTrace": "XTrace"}[estimator]
    alone = measure(Measurement("spheres, GELU", name, seeds=4), trained).values
    assert [(low + high) / 2 for low, high in zip(ends[::2], ends[1::2], strict=True)] == pytest.approx(alone)
    assert all(high > low for low, high in zip(ends[::2], ends[1::2], strict=True))


def test_that_differences_agree_with_derivatives_without_kinks(trained) -> None:
    steps = len(measuring.STEPS)
    values = measure(Measurement("spheres, GELU", KINKS, seeds=1), trained).values
    exact, smallest = values[0], values[1]
    assert smallest == pytest.approx(exact, rel=1e-3)  # the error is of second order in the step
    assert values[1 + steps] > 0.999


def _fake(run: Measurement) -> Measured:
    if run.estimator == EXACT:
        values = [100.0, 10.0, 5000.0]
    elif run.estimator == KINKS:
        values = [100.0, 101.0, 102.0, 103.0, 0.5, 0.25, 0.125]
    elif run.estimator in INTERVALS:  # every fourth lies beside the trace, 100
        values = [end for seed in range(run.seeds) for end in ((101.0, 105.0) if seed % 4 == 0 else (98.0, 102.0))]
    else:
        truth = 10 if named.ESTIMATORS[run.estimator].quantity == "top eigenvalue" else 100
        values = [truth * (1 + 0.01 * (seed % 2)) for seed in range(run.seeds)]
    return Measured(run, values, seconds=1.0, gradients=36.0, megabytes=7.0)


def test_that_errors_are_reported_in_per_cent_of_the_truth(tmp_path) -> None:
    rows = [_fake(run) for run in ESTIMATORS.measurements()]
    text = report(rows, tmp_path)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    deviation = (20 / 19 * 0.25) ** 0.5  # deviation of ten errors of 0 and ten of 1
    half = 2.093 * deviation / math.sqrt(20)  # Student's quantile for 19 degrees of freedom
    for name in ("XTrace", "PyHessian", "Lanczos"):
        assert [name, f"0.50 ± {half:.2f}", f"{deviation:.2f}", "36", "7"] in cells, name
    assert ["plain, ReLU", "100.0", "101.0", "102.0", "103.0"] in cells
    assert ["plain, ReLU", "1", "0.500", "0.250", "0.125"] in cells
    assert ["plain, ReLU", "75.0", "2.0", "75.0", "2.0"] in cells
    # half of the errors are 1 %, half 0
    assert "error is smallest for *Hutchinson, normal* (0.7 %)" in text
    for name in ("answer.svg", "errors.svg"):
        assert f"]({name})" in text
        assert b"<svg" in (tmp_path / name).read_bytes()


def test_that_measurements_are_kept(tmp_path) -> None:
    results = Results(tmp_path / "rows.jsonl", Measured)
    runs = ESTIMATORS.measurements()
    assert len({run.key for run in runs}) == len(runs)
    results.append(_fake(runs[0]))
    assert results.find(runs) == {runs[0]: _fake(runs[0])}


def test_that_the_report_waits_for_all_measurements(tmp_path) -> None:
    results = Results(tmp_path / "rows.jsonl", Measured)
    *most, last = ESTIMATORS.measurements()
    for run in most:
        results.append(_fake(run))
    with pytest.raises(NothingToReport, match=f"has {len(most)} of {len(most) + 1} measurements"):
        ESTIMATORS.report(tmp_path)
    results.append(_fake(last))
    assert ESTIMATORS.report(tmp_path) == report([*map(_fake, [*most, last])], tmp_path)


def test_that_the_quick_version_measures_tiny_networks(tmp_path) -> None:
    quick = ESTIMATORS.quick()
    assert {run.network for run in quick.measurements()} == set(networks.TINY)
    for name in networks.TINY:
        model = networks.prepare(networks.run_of(name)).model
        assert sum(p.numel() for p in model.parameters()) < 3000
    text = report([_fake(run) for run in quick.measurements()], tmp_path)
    assert "### Trace, tiny plain, ReLU" in text
    assert "### Trace, plain, ReLU" not in text


def test_that_the_committed_rows_are_those_of_the_study() -> None:
    committed = Results(Path(__file__).parents[2] / "benchmarks" / "results" / "estimators" / "rows.jsonl", Measured)
    assert committed.find(ESTIMATORS.measurements()).keys() == set(ESTIMATORS.measurements())
