"""That the command line helps, and does what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.cli import main
from benchmarks.data import wordnet
from benchmarks.data.directory import data_directory, may_download
from benchmarks.runs import cluster
from benchmarks.runs.parallel import Workers
from benchmarks.studies import STUDIES, quick, study
from tests.benchmarks import fakes
from tests.benchmarks.training_steps import on


def test_that_a_study_trains_and_says_where_its_files_are(monkeypatch, tmp_path, capsys) -> None:
    runs = [on(run, batch_size=500) for run in quick.QUICK.runs if run.seed == 0 and run.method in ("sgd", "rsam")]
    tiny = replace(quick.QUICK, runs=tuple(replace(run, epochs=1) for run in runs))
    monkeypatch.setitem(STUDIES, "quick", tiny)
    assert main(["run", "quick", "--results", str(tmp_path), "--jobs", "1"]) == 0
    printed = capsys.readouterr()
    assert "| RSAM, spheres " in printed.out
    assert "2/2" in printed.err
    for name in ("report.md", "report.html"):
        assert str(tmp_path / "quick" / name) in printed.out
    for name in ("rows.jsonl", "learning_curves.svg", "report.md", "report.html"):
        assert (tmp_path / "quick" / name).is_file()


def test_that_a_second_call_reports_the_same_from_the_rows(monkeypatch, tmp_path, capsys, here) -> None:
    arguments = ["run", "quick", "--results", str(tmp_path), "--jobs", "1"]
    monkeypatch.setattr(study, "train", fakes.fake_train)
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    rows = (tmp_path / "quick" / "rows.jsonl").read_bytes()
    monkeypatch.setattr(study, "train", fakes.fails_on_seed_1)
    assert main(arguments) == 0
    assert capsys.readouterr().out == printed
    assert (tmp_path / "quick" / "rows.jsonl").read_bytes() == rows


def test_that_failures_are_told_once_with_their_runs(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(study, "train", fakes.fails_on_seed_1)
    assert main(["run", "quick", "--results", str(tmp_path), "--jobs", "1"]) == 1
    error = capsys.readouterr().err
    for run in quick.QUICK.runs:
        assert (f"failed: {run}" in error) == (run.seed == 1)
    assert error.count("ArithmeticError: the loss is infinite") == 1
    assert f"python -m benchmarks run quick --results {tmp_path} --jobs 1" in error
    assert len((tmp_path / "quick" / "rows.jsonl").read_bytes().splitlines()) == 2 * len(quick.TUNED)


def test_that_interruption_says_how_to_go_on(monkeypatch, tmp_path, capsys) -> None:
    class Interrupted:
        name, summary = "quick", ""

        def run(self, directory, workers):
            raise KeyboardInterrupt

    monkeypatch.setitem(STUDIES, "quick", Interrupted())
    assert main(["run", "quick", "--results", str(tmp_path / "my results"), "--jobs", "3"]) == 130
    assert f"python -m benchmarks run quick --results '{tmp_path}/my results' --jobs 3" in capsys.readouterr().err


def test_that_reporting_needs_results_and_trains_nothing(monkeypatch, tmp_path, capsys, here) -> None:
    arguments = ["quick", "--results", str(tmp_path)]
    assert main(["report", *arguments]) == 1
    errors = capsys.readouterr().err
    assert "has no row of this study; first `python -m benchmarks run quick --results" in errors
    assert str(tmp_path) in errors
    monkeypatch.setattr(study, "train", fakes.fake_train)
    assert main(["run", *arguments, "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    monkeypatch.setattr(study, "train", None)
    assert main(["report", *arguments]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("name", STUDIES)
def test_that_every_study_has_a_quick_version_of_its_own(monkeypatch, name, capsys, tmp_path) -> None:
    quick = STUDIES[name].quick()
    assert type(quick) is type(STUDIES[name])
    assert quick != STUDIES[name]
    # --quick runs this version, in a directory of its own
    assert main(["report", name, "--quick", "--results", str(tmp_path)]) == 1
    assert f"{tmp_path}/{name}-quick" in capsys.readouterr().err


def test_that_options_reach_those_who_train(monkeypatch, tmp_path) -> None:
    seen = []

    class Spy:
        name, summary = "quick", ""

        def run(self, directory, workers):
            seen.append((directory, workers, data_directory(), may_download()))

        def report(self, directory):
            return "# spied"

    monkeypatch.setitem(STUDIES, "quick", Spy())
    # so that variables set by the command are reset after the test
    monkeypatch.setenv("RSAM_DATA", "elsewhere")
    monkeypatch.setenv("RSAM_DOWNLOAD", "0")
    options = ["--scheduler", "tcp://host:1", "--keep-weights", "--data-dir", str(tmp_path / "data"), "--download"]
    assert main(["run", "quick", "--results", str(tmp_path), "--jobs", "3", *options]) == 0
    expected = Workers(3, "tcp://host:1", keep_weights=True)
    assert seen == [(tmp_path / "quick", expected, tmp_path / "data", True)]


def test_that_a_missing_scheduler_is_named(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(cluster, "SECONDS", 0.2)
    arguments = ["run", "quick", "--results", str(tmp_path), "--scheduler", "tcp://127.0.0.1:1"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:1'" in error
    assert "start one with `dask scheduler`" in error


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("quikc", "quick"), ("overheads", "overhead"), ("optimisers", "optimizers")],
)
def test_that_a_wrong_name_suggests_the_nearest(typed, meant, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", typed])
    assert caught.value.code == 2
    assert f"there is no study {typed!r}; did you mean {meant!r}?" in capsys.readouterr().err


def test_that_a_name_like_no_other_gets_no_guess(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["run", "zzz"])
    error = capsys.readouterr().err
    assert "did you mean" not in error
    assert "studies: quick, optimizers" in error


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_that_a_senseless_number_of_jobs_is_refused(jobs, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["run", "quick", "--jobs", jobs])
    assert "argument --jobs: must be a whole number of at least 1" in capsys.readouterr().err


def test_that_a_file_in_place_of_the_directory_is_named(tmp_path, capsys) -> None:
    (tmp_path / "taken").touch()
    assert main(["run", "quick", "--results", str(tmp_path / "taken")]) == 1
    assert str(tmp_path / "taken") in capsys.readouterr().err


def test_that_studies_are_listed_with_what_they_are(capsys) -> None:
    assert main(["list"]) == 0
    assert [line.split("  ")[0].strip() for line in capsys.readouterr().out.splitlines()] == list(STUDIES)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["report", "--help"]])
def test_that_help_shows_examples(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "python -m benchmarks run quick" in capsys.readouterr().out


def test_that_missing_nouns_are_named_and_the_report_says_what_to_run(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("RSAM_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(wordnet, "DEBIAN", tmp_path / "not installed")
    wordnet.load_hierarchy.cache_clear()
    assert main(["run", "hyperbolic-nouns", "--results", str(tmp_path)]) == 1
    assert "apt-get install wordnet-base" in capsys.readouterr().err
    assert main(["report", "spd", "--quick", "--results", str(tmp_path)]) == 1
    assert "--quick`" in capsys.readouterr().err
