"""That the comparison trains missing runs, and reports on finished ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.run import Row, Run
from benchmarks.runs.parallel import RunsFailed, Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies import NothingToReport
from benchmarks.studies.comparison import study
from benchmarks.studies.comparison.cases import Case
from benchmarks.studies.comparison.contest import compete, count
from benchmarks.studies.comparison.study import ComparisonStudy
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.images.report import RULES
from benchmarks.workloads.images import as_images
from tests.benchmarks.comparisons import ASKED, MEASURES, cells, generator, percent, shown
from tests.benchmarks.entries import Recorder, made_case, made_row


def made_by_number(run: Run) -> Row:
    """Make a row without training, with numbers that depend on the run."""
    rng = generator(int(run.key, 16))
    measures = {name: float(rng.lognormal()) for name in (*MEASURES, "trace_error")} if run.measures else {}
    return made_row(run, float(rng.uniform(0.5, 0.8)), measures=measures)


TINY = ComparisonStudy(
    name="tiny",
    summary="",
    title="Tiny",
    question="Who wins?",
    cases=(made_case(ASKED, "first").quick(), made_case(ASKED, "second", label_noise=0.4).quick()),
    quick_cases=(),
    rules=RULES,
    protocol=Protocol(first=(100,), kept=1, second=(101,), final=(0, 1)),
)


FIRST = as_images(TINY.cases[0].template.workload)


def fill(directory: Path, case: Case, but: Callable[[Run], bool] = lambda run: False) -> None:
    """Write the rows of a case to a study's file."""
    results = Results(directory / "rows.jsonl", Row)
    recorder = Recorder(made_by_number)
    compete(case, recorder, TINY.protocol)
    for run in recorder.runs:
        if not but(run):
            results.append(made_by_number(run))


@pytest.mark.parametrize("nothing", ["no file", "half a case"])
def test_that_without_a_complete_case_there_is_nothing_to_report(cheap, tmp_path, nothing) -> None:
    if nothing == "half a case":
        fill(tmp_path, TINY.cases[0], but=lambda run: run.seed == 1)
    with pytest.raises(NothingToReport, match=re.escape(str(tmp_path / "rows.jsonl"))):
        TINY.report(tmp_path)


@pytest.mark.parametrize(
    "missing",
    [
        lambda run: True,
        lambda run: run.workload.kernels == "stiefel" and run.seed == 1,
        lambda run: run.method == "sgd" and run.seed == 100,
        lambda run: run.seed == 101,
    ],
    ids=["all", "a final run", "first seeds", "second seeds"],
)
def test_that_a_case_that_is_not_complete_is_named(cheap, tmp_path, missing) -> None:
    fill(tmp_path, TINY.cases[0])
    fill(tmp_path, TINY.cases[1], but=missing)
    text = TINY.report(tmp_path)
    assert text.startswith("# Tiny\n")
    assert "**Preliminary**: without made up, second." in text
    assert "## made up, first" in text
    assert "## made up, second" not in text
    assert (tmp_path / "first-intervals.svg").is_file()
    assert not (tmp_path / "second-intervals.svg").exists()


def test_that_a_report_on_all_cases_names_none(cheap, tmp_path) -> None:
    for case in TINY.cases:
        fill(tmp_path, case)
    before = (tmp_path / "rows.jsonl").read_bytes()
    text = TINY.report(tmp_path)
    assert "Preliminary" not in text
    assert re.findall("^## made up, ([a-z]+) ", text, re.MULTILINE) == ["first", "second"]
    assert TINY.report(tmp_path) == text
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_that_the_report_is_on_the_rows_of_the_file(cheap, tmp_path) -> None:
    fill(tmp_path, TINY.cases[0])
    found = cells(TINY.report(tmp_path), "test accuracy, %")
    entries = compete(TINY.cases[0], Recorder(made_by_number), TINY.protocol)
    for entry in entries:
        assert found[entry.contestant.label] == [
            entry.contestant.label,
            shown(percent(entry), 1),
        ]


def here(*arguments: object, bar: object, **options: object) -> list[Row]:
    """Run ``collect`` in this process, without workers."""
    runs, train, results, _ = arguments
    found = results.find(runs)  # type: ignore[attr-defined]
    for run in runs:  # type: ignore[attr-defined]
        if run not in found:
            results.append(train(run))  # type: ignore[attr-defined, operator]
        bar.update()  # type: ignore[attr-defined]
    return collect(runs, train, results, Workers(), bar=None)  # type: ignore[arg-type]


def test_that_a_study_trains_what_is_missing_once_and_skips_cases_without_data(
    monkeypatch, cheap, tmp_path, capsys
) -> None:
    trained: list[Run] = []

    def train(run: Run) -> Row:
        trained.append(run)
        return made_by_number(run)

    monkeypatch.setenv("RSAM_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(study, "trainer", lambda directory, workers: train)
    monkeypatch.setattr(study, "collect", here)
    absent = made_case(ASKED, "absent", dataset="imagefolder:absent").quick()
    tiny = replace(TINY, cases=(absent, *TINY.cases))
    fill(tmp_path, TINY.cases[0], but=lambda run: run.seed in (0, 101))

    tiny.run(tmp_path, Workers())
    printed = capsys.readouterr().err
    assert "skipped: made up, absent: imagefolder:absent" in printed
    total = count(TINY.cases, TINY.protocol)
    assert f"{total}/{total}" in printed
    assert {run.workload.dataset for run in trained} == {"digits"}
    of_first = [run for run in trained if run.workload == replace(FIRST, kernels=run.workload.kernels)]
    assert {run.seed for run in of_first} == {0, 101}
    assert len(set(trained)) == len(trained) == len(of_first) + count(TINY.cases[1:], TINY.protocol)
    assert "**Preliminary**: without made up, absent." in tiny.report(tmp_path)

    trained.clear()
    tiny.run(tmp_path, Workers())
    assert trained == []


def test_that_a_run_that_fails_and_data_that_are_damaged_keep_back_their_own_case_only(
    monkeypatch, cheap, tmp_path, capsys
) -> None:
    class Failing(Exception):
        pass

    def train(run: Run) -> Row:
        if run.workload == replace(FIRST, kernels=run.workload.kernels):
            raise Failing
        return made_by_number(run)

    def gather(runs, train, results, workers, *, bar) -> list[Row]:
        try:
            return here(runs, train, results, workers, bar=bar)
        except Failing as error:
            raise RunsFailed([(runs[0], repr(error))]) from error

    folder = tmp_path / "damaged" / "train"
    folder.mkdir(parents=True)  # a folder without classes
    monkeypatch.setenv("RSAM_DATA", str(tmp_path))
    monkeypatch.setattr(study, "trainer", lambda directory, workers: train)
    monkeypatch.setattr(study, "collect", gather)
    damaged = made_case(ASKED, "damaged", dataset="imagefolder:damaged").quick()
    tiny = replace(TINY, cases=(damaged, *TINY.cases))
    with pytest.raises(RunsFailed) as caught:
        tiny.run(tmp_path, Workers())
    assert len(caught.value.failures) == 1
    assert "skipped: made up, damaged: " in capsys.readouterr().err
    assert "**Preliminary**: without made up, damaged; made up, first." in tiny.report(tmp_path)
