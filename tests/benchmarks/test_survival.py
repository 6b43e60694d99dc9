"""That a study that is killed and called again ends with the report of an undisturbed one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.studies.comparison.study import ComparisonStudy
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.images.cases import make_case
from benchmarks.studies.images.report import RULES
from benchmarks.workloads.images import Images

#: All tests share one undisturbed study, so that one process should run them.
pytestmark = pytest.mark.xdist_group("survival")
ROOT = Path(__file__).parents[2]
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
            Images("digits", "tiny_cnn", label_noise=0.0),
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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    process = start(directory, None)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    return directory


def wait_for(count: int, process: subprocess.Popen, directory: Path) -> None:
    """Wait until a number of runs are done."""
    end = time.monotonic() + 120
    while len(rows(directory)) < count:
        assert process.poll() is None and time.monotonic() < end, "it ended, or hangs"
        time.sleep(0.02)


def kill_a_worker(process: subprocess.Popen) -> None:
    """Kill one of two workers of a Dask cluster, which starts another in its place."""
    psutil = pytest.importorskip("psutil")  # Dask needs it
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in children if any("spawn_main" in word for word in child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()


@pytest.mark.parametrize("scheduler", [None, "local"])
def test_that_a_killed_study_ends_as_an_undisturbed_one(tmp_path, undisturbed, scheduler) -> None:
    process = start(tmp_path, scheduler)
    try:
        if scheduler == "local":
            wait_for(3, process, tmp_path)
            kill_a_worker(process)
            wait_for(8, process, tmp_path)  # the study goes on
        else:
            wait_for(5, process, tmp_path)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)  # the workers end too
    finally:
        process.kill()
    before = rows(tmp_path)
    assert 5 <= len(before) < len(rows(undisturbed))
    again = start(tmp_path, scheduler)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors.decode()
    assert rows(tmp_path) == rows(undisturbed)
    # no run was trained twice
    assert len((tmp_path / "rows.jsonl").read_bytes().splitlines()) == len(rows(undisturbed))
    assert report(tmp_path) == report(undisturbed)


def report(directory: Path) -> str:
    """Return the report without times."""
    return re.sub(r"\| +[\d.]+ \| +\|$|[\d.]+ hours|\d+ MB", "", STUDY.report(directory), flags=re.MULTILINE)
