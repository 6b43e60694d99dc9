"""That the file of results survives any end of the process that writes it."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

from benchmarks.run import Row, Run
from benchmarks.runs.results import Results, ResultsError
from benchmarks.workloads.chains import Chains
from benchmarks.workloads.hyperbolic import Embedded
from benchmarks.workloads.hyperbolic.classification import FewLabels
from benchmarks.workloads.images import Images
from benchmarks.workloads.recurrent import Sequences
from benchmarks.workloads.spd import HandSigns
from tests.benchmarks.fakes import Nothing, row_of, runs


@pytest.fixture
def results(tmp_path) -> Results:
    return Results(tmp_path / "deep" / "rows.jsonl", Row)


def test_that_rows_come_back_as_they_were(results) -> None:
    rows = {run: row_of(run, accuracy=run.seed / 7) for run in runs(3)}
    for row in rows.values():
        results.append(row)
    assert Results(results.path, Row).find(rows) == rows


def test_that_only_what_is_asked_for_is_found(results) -> None:
    first, second, third = runs(3)
    results.append(row_of(first))
    results.append(row_of(second))
    assert results.find([second, third]).keys() == {second}


@pytest.mark.parametrize("field", [f.name for f in fields(Run)])
def test_that_every_part_of_the_configuration_counts(results, field) -> None:
    (run,) = runs(1)
    value = getattr(run, field)
    others = {"workload": Nothing("elsewhere"), "measures": ("trace",), "heldout": "validation", "method": "another"}
    other = replace(run, **{field: others[field] if field in others else value + 1})
    results.append(row_of(run))
    assert results.find([other]) == {}


@pytest.mark.parametrize("kept", [1, 30, -1])
def test_that_a_torn_last_line_counts_as_not_written(results, kept) -> None:
    first, second, third = runs(3)
    results.append(row_of(first))
    whole = results.path.read_bytes()
    results.append(row_of(second))
    torn = results.path.read_bytes()[len(whole) :][:kept]
    results.path.write_bytes(whole + torn)

    assert results.find([first, second]) == {first: row_of(first)}
    results.append(row_of(third))
    assert results.find([first, second, third]).keys() == {first, third}
    results.append(row_of(second))
    assert results.find([first, second, third]).keys() == {first, second, third}
    for line in results.path.read_text().splitlines():
        json.loads(line)


def test_that_damage_elsewhere_names_file_and_line(results) -> None:
    for run in runs(2):
        results.append(row_of(run))
    first, second = results.path.read_bytes().splitlines(keepends=True)
    results.path.write_bytes(first + b"{?}\n" + second)
    with pytest.raises(ResultsError, match=r"rows\.jsonl, line 2, is damaged"):
        results.find(runs(2))


def test_that_rows_of_another_version_count_as_missing(results) -> None:
    (run,) = runs(1)
    results.append(row_of(run))
    content = json.loads(results.path.read_bytes())
    renamed = {**content, "accuracy": content.pop("scores")}
    other = {"key": "0123", "run": {"method": "old"}, "colour": "red"}
    results.path.write_text(json.dumps(renamed) + "\n" + json.dumps(other) + "\n")
    assert results.find([run]) == {}
    results.append(row_of(run))
    assert results.find([run]) == {run: row_of(run)}


@dataclass(frozen=True)
class Otherwise(Nothing):
    """Another workload with the same fields."""


def test_that_keys_tell_workloads_apart_and_outlive_new_fields() -> None:
    (run,) = runs(1)
    assert replace(run, workload=Otherwise()).key != run.key
    # the key ignores fields at their defaults, so that this hash must never change
    assert Run(Embedded("mammals", "lorentz", 5), "rsam", 0, 0.1, 100, rho=0.2).key == "4d1f6ea3e339b6ca"


def test_that_a_second_writer_is_refused(tmp_path) -> None:
    pytest.importorskip("fcntl")
    first, second = (Results(tmp_path / "rows.jsonl", Row) for _ in range(2))
    with first.alone():
        with pytest.raises(ResultsError, match=r"another process writes to .*rows\.jsonl; wait"), second.alone():
            pass
        first.append(row_of(runs(1)[0]))
    with second.alone():
        assert len(second.find(runs(1))) == 1


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
#: No two of them have the same fields.
WORKLOADS = (Images, Chains, Embedded, FewLabels, Sequences, HandSigns)


@pytest.mark.parametrize("study", ["ablations", "hyperbolic", "optimizers", "population", "recurrent", "spd"])
def test_that_committed_rows_are_found_by_runs_as_they_are_described_today(study) -> None:
    with (RESULTS / study / "rows.jsonl").open(encoding="utf-8") as file:
        contents = [json.loads(line) for line in itertools.islice(file, 0, 1000, 100)]
    for content in contents:
        run = content["run"]
        (kind,) = (one for one in WORKLOADS if run["workload"].keys() == {field.name for field in fields(one)})
        described = Run(**{**run, "workload": kind(**run["workload"]), "measures": tuple(run["measures"])})
        assert described.key == content["key"]
