"""That a study loses no finished run to failures, dying workers, Ctrl-C or kill -9."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.run import Row, Run
from benchmarks.runs.parallel import RunsFailed, Workers, collect
from benchmarks.runs.results import Results
from tests.benchmarks import fakes
from tests.benchmarks.fakes import row_of, runs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(tmp_path) -> Results:
    return Results(tmp_path / "rows.jsonl", Row)


def test_that_rows_are_made_once_and_found_later(results) -> None:
    expected = [row_of(run, run.seed / 10) for run in runs(4)]
    assert collect(runs(2), fakes.fake_train, results, Workers(2)) == expected[:2]
    assert collect(runs(4), fakes.fake_train, results, Workers(2)) == expected
    written = results.path.read_bytes()
    assert len(written.splitlines()) == 4
    # this would fail if any run were trained again
    assert collect(runs(4), fakes.fails_on_seed_1, results, Workers(2)) == expected
    assert results.path.read_bytes() == written


def test_that_a_failing_run_is_named_and_loses_no_other(results) -> None:
    with pytest.raises(RunsFailed) as caught:
        collect(runs(4), fakes.fails_on_seed_1, results, Workers(2))
    ((run, reason),) = caught.value.failures
    assert run == runs(4)[1]
    assert "ArithmeticError: the loss is infinite" in reason
    assert {run.seed for run in results.find(runs(4))} == {0, 2, 3}


def test_that_a_dying_worker_loses_only_what_was_running(results) -> None:
    with pytest.raises(RunsFailed) as caught:
        collect(runs(5), fakes.dies_on_seed_1, results, Workers(2))
    lost = {run.seed for run, _ in caught.value.failures}
    assert 1 in lost
    assert len(lost) <= 2
    assert all("worker process died" in reason for _, reason in caught.value.failures)
    assert {run.seed for run in results.find(runs(5))} == {0, 1, 2, 3, 4} - lost


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_that_interruption_keeps_what_had_finished_and_leaves_no_process(tmp_path, results, end) -> None:
    program = (
        # background jobs of a shell, and their children, ignore Ctrl-C
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from pathlib import Path; from benchmarks.runs.parallel import Workers, collect; "
        "from benchmarks.run import Row; from benchmarks.runs.results import Results; "
        "from tests.benchmarks.test_parallel import tagged; "
        "from tests.benchmarks import fakes; "
        f"results = Results(Path({str(results.path)!r}), Row); "
        f"collect(tagged({str(tmp_path)!r}), fakes.hangs_from_seed_2, results, Workers(2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_until_hanging(tmp_path, count=2)
        process.send_signal(end)
        # the pipes close when the last worker that inherited them has ended
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert {run.seed for run in results.find(tagged(str(tmp_path)))} == {0, 1}


def tagged(directory: str) -> list[Run]:
    return runs(5, directory=directory)


def wait_until_hanging(directory: Path, count: int, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while len(list(directory.glob("worker-*"))) < count:
        assert time.monotonic() < end, "the runs that hang were not reached"
        time.sleep(0.02)
