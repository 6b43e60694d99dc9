"""That a study that is killed and called again ends with the report of an undisturbed one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.run import Row, Run
from benchmarks.runs.parallel import Workers
from benchmarks.runs.results import Results
from benchmarks.runs.training import train
from benchmarks.studies.comparison.contest import compete
from benchmarks.studies.comparison.study import ComparisonStudy
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.images.cases import make_case
from benchmarks.studies.images.report import RULES
from benchmarks.workloads.images import Images

ROOT = Path(__file__).parents[2]
#: Seconds after which it hangs, on a busy machine too.
LONG = 600
#: The methods that the claims of the report compare.
METHODS = ("sgd", "sam", "gradient_norm", "hessian_trace", "rsam", "rsam_stiefel")
STUDY = ComparisonStudy(
    name="survival",
    summary="",
    title="Survival",
    question="Who survives?",
    cases=(
        make_case(
            "digits",
            "digits",
            Images("digits", "tiny_cnn", label_noise=0.0, examples=256),
            1,
            methods=METHODS,
            equal_gradients=False,
        ).quick(),
    ),
    quick_cases=(),
    rules=RULES,
    protocol=Protocol(first=(1000,), kept=1, second=(), final=(0, 1)),
)
PROGRAM = """
from pathlib import Path
from benchmarks.runs.parallel import Workers
from tests.benchmarks.test_survival import STUDY
STUDY.run(Path({directory!r}), Workers(2, {scheduler!r}))
"""


def start(directory: Path, scheduler: str | None) -> subprocess.Popen:
    directory.mkdir(exist_ok=True)
    program = PROGRAM.format(directory=str(directory), scheduler=scheduler)
    guarded = "if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in program.strip().splitlines())
    script = directory / "main.py"  # Dask's processes import the script that started them
    script.write_text(guarded, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
    )


def rows(directory: Path) -> dict[str, dict]:
    """Return the rows of the file by key, without their times."""
    path = directory / "rows.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    contents = [json.loads(line) for line in lines]
    return {content["key"]: {**content, "seconds": 0, "seconds_per_step": 0, "megabytes": 0} for content in contents}


def undisturbed(directory: Path) -> Path:
    """Train all runs of the study in this process, one after another."""
    directory.mkdir()
    results = Results(directory / "rows.jsonl", Row)

    def gather(runs: Sequence[Run]) -> list[Row]:
        rows = [train(run) for run in runs]
        for row in rows:
            results.append(row)
        return rows

    for case in STUDY.cases:
        compete(case, gather, STUDY.protocol)
    return directory


def wait_for(count: int, process: subprocess.Popen, directory: Path) -> None:
    """Wait until a number of runs are done."""
    end = time.monotonic() + LONG
    while len(rows(directory)) < count:
        assert process.poll() is None and time.monotonic() < end, "it ended, or hangs"
        time.sleep(0.02)


def kill_a_worker(process: subprocess.Popen) -> None:
    """Kill one of two workers of a Dask cluster, which starts another in its place."""
    psutil = pytest.importorskip("psutil")  # Dask needs it
    end = time.monotonic() + LONG
    workers = []
    while len(workers) < 2:  # between two clusters there is none
        assert process.poll() is None and time.monotonic() < end, "it ended, or hangs"
        time.sleep(0.02)
        with suppress(psutil.NoSuchProcess):  # one that has just ended
            children = psutil.Process(process.pid).children(recursive=True)
            workers = [child for child in children if any("spawn_main" in word for word in child.cmdline())]
    workers[0].kill()


@pytest.mark.filterwarnings("ignore:An input array is constant")  # after an epoch on few digits
def test_that_a_study_that_is_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path, cheap) -> None:
    # by processes and by a Dask cluster, one after the other: starting these takes longer than training
    directory = tmp_path / "killed"
    for scheduler in (None, "local"):
        done = len(rows(directory))
        process = start(directory, scheduler)
        try:
            if scheduler == "local":
                wait_for(done + 2, process, directory)
                kill_a_worker(process)
            wait_for(done + 5, process, directory)  # the study goes on
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=LONG)  # the workers end too
        finally:
            process.kill()
    expected = undisturbed(tmp_path / "undisturbed")
    assert 10 <= len(rows(directory)) < len(rows(expected))
    STUDY.run(directory, Workers(1))
    assert rows(directory) == rows(expected)
    # no run was trained twice
    assert len((directory / "rows.jsonl").read_bytes().splitlines()) == len(rows(expected))
    assert report(directory) == report(expected)


def report(directory: Path) -> str:
    """Return the report without times."""
    return re.sub(r"\| +[\d.]+ \| +\|$|[\d.]+ hours|\d+ MB", "", STUDY.report(directory), flags=re.MULTILINE)
