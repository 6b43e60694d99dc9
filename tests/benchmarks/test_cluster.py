"""That Dask's workers return the same rows as local processes, even if some die."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from benchmarks.run import Row
from benchmarks.runs.cluster import ClusterError, outcomes
from benchmarks.runs.parallel import RunsFailed, Workers, collect
from benchmarks.runs.results import Results
from tests.benchmarks import fakes
from tests.benchmarks.fakes import row_of, runs

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    # a run may kill one worker and go on, instead of three, each of which takes a second to start
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture
def results(tmp_path) -> Results:
    return Results(tmp_path / "rows.jsonl", Row)


def test_that_rows_are_those_of_local_processes(scheduler, results) -> None:
    expected = [row_of(run, run.seed / 10) for run in runs(5)]
    assert collect(runs(5), fakes.fake_train, results, Workers(scheduler=scheduler)) == expected
    assert results.find(runs(5)) == {row.run: row for row in expected}


def test_that_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match="--scheduler needs Dask: `pip install distributed`"):
        next(outcomes(runs(1), fakes.fake_train, 1, "local"))


def test_that_workers_look_for_data_where_the_command_line_says(scheduler, monkeypatch, results) -> None:
    monkeypatch.setenv("RSAM_DATA", "/somewhere/else")  # changed after the workers started
    (row,) = collect(runs(1), fakes.tells_its_data_directory, results, Workers(scheduler=scheduler))
    assert row.device == "/somewhere/else"


def test_that_a_local_cluster_can_be_had(results) -> None:
    assert collect(runs(2), fakes.fake_train, results, Workers(1, "local")) == [*map(fakes.fake_train, runs(2))]


def test_that_the_runs_of_a_killed_worker_are_done_by_another(scheduler, tmp_path, results) -> None:
    wanted = runs(6, directory=str(tmp_path))
    rows = collect(wanted, fakes.dies_once_on_seed_1, results, Workers(scheduler=scheduler))
    assert (tmp_path / "died").exists()
    assert rows == [*map(fakes.fake_train, wanted)]
    assert len(results.path.read_bytes().splitlines()) == 6


def test_that_a_run_that_kills_every_worker_is_named_and_loses_no_other(scheduler, results) -> None:
    with pytest.raises(RunsFailed) as caught:
        collect(runs(4), fakes.dies_on_seed_1, results, Workers(scheduler=scheduler))
    ((run, reason),) = caught.value.failures
    assert run == runs(4)[1]
    assert "its workers died again and again" in reason
    assert {run.seed for run in results.find(runs(4))} == {0, 2, 3}


def test_that_a_failing_run_is_named_with_its_traceback(scheduler, results) -> None:
    with pytest.raises(RunsFailed) as caught:
        collect(runs(4), fakes.fails_on_seed_1, results, Workers(scheduler=scheduler))
    ((run, reason),) = caught.value.failures
    assert run == runs(4)[1]
    assert "fails_on_seed_1" in reason
    assert reason.endswith("ArithmeticError: the loss is infinite")
    assert {run.seed for run in results.find(runs(4))} == {0, 2, 3}
