"""That comparisons on tasks tune all methods alike, train each trial once, and report the numbers of their rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.runs.parallel import Workers
from benchmarks.runs.results import Results
from benchmarks.studies import NothingToReport
from benchmarks.studies.tasks import HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD, TasksStudy, study
from benchmarks.studies.tasks.cases import NOTES
from benchmarks.studies.tasks.protocol import compete, count
from benchmarks.studies.tasks.tables import RULE, by_case, conclusions, overview
from benchmarks.tasks import TASKS
from benchmarks.tasks.methods import FIXED, METHODS
from benchmarks.tasks.trial import Outcome, Trial
from benchmarks.workloads.manifolds import MANIFOLDS
from tests.benchmarks.made_tasks import CASES, ERRORS, ONE, OTHER, PROTOCOL, collect, entries_of, made

# ---- the protocol


def test_that_every_method_has_as_many_settings() -> None:
    for found in (HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD):
        for case in found.cases:
            sizes = {len(set(case.grid.settings(method))) for method in METHODS}
            assert case.template.momentum == FIXED  # that of bases at the settings of an ascent
            assert sizes == ({1} if found is HYPERBOLIC_NOUNS else {12})


def test_that_tuning_sees_validation_data_and_final_trials_the_test_data_with_other_seeds() -> None:
    seen: list[Trial] = []

    def watched(trials: Sequence[Trial]) -> list[Outcome]:
        seen.extend(trials)
        return collect(trials)

    entries = compete(ONE, ONE, watched, PROTOCOL)
    for trial in seen:
        assert (trial.heldout == "test") == (trial.seed in PROTOCOL.final) == trial.curvature
    for entry in entries:
        method = METHODS[entry.method]
        chosen = 0.02 if method.base else FIXED if method.settings_of else 0.5
        assert (entry.tuned.setting.lr, entry.tuned.setting.knob) == (0.2, chosen)
        assert [row.run.seed for row in entry.rows] == list(PROTOCOL.final)
        assert {replace(row.run, seed=0) for row in entry.rows} == {entry.tuned.setting}
        # a base that is trained twice as long takes the gradient evaluations of an ascent, and is tuned for that
        twice = 2 if entry.method.endswith("_twice") else 1
        assert {row.run.epochs for row in entry.rows} == {twice * ONE.template.epochs}
        assert {setting.epochs for setting in entry.tuned.scores} == {twice * ONE.template.epochs}


def test_that_nothing_but_the_ascent_differs_from_a_base_that_takes_its_settings() -> None:
    def prefers(trials: Sequence[Trial]) -> list[Outcome]:
        """Of RSAM another learning rate than of its base."""
        return [made(replace(t, lr=round(0.3 - t.lr, 1)) if t.method.startswith("rsam") else t) for t in trials]

    found = {entry.method: entry for entry in compete(ONE, ONE, prefers, PROTOCOL)}
    assert found["riemannian_sgd"].tuned.setting.lr == 0.2
    for ascent, alike in (("rsam", "riemannian_sgd_alike"), ("rsam_adam", "riemannian_adam_alike")):
        setting = found[alike].tuned.setting
        assert setting == replace(found[ascent].tuned.setting, method=alike, knob=FIXED)
        assert setting.lr == 0.1
        assert {replace(row.run, seed=0) for row in found[alike].rows} == {setting}


def test_that_errors_are_tuned_to_be_small() -> None:
    assert {entry.tuned.setting.lr for entry in entries_of(ERRORS)} == {0.2}


def test_that_a_case_takes_the_settings_of_another() -> None:
    for entry in entries_of(OTHER):
        assert entry.tuned.setting.size == ONE.template.size
        for row in entry.rows:
            assert row.run.size == 3
            assert (row.run.lr, row.run.knob) == (entry.tuned.setting.lr, entry.tuned.setting.knob)


def test_that_settings_that_diverge_are_not_chosen() -> None:
    def fails(trials: Sequence[Trial]) -> list[Outcome]:
        return [made(trial, diverged=trial.lr == 0.2) for trial in trials]

    assert {entry.tuned.setting.lr for entry in compete(ONE, ONE, fails, PROTOCOL)} == {0.1}


@pytest.mark.parametrize("cases", [CASES, HYPERBOLIC.cases, HYPERBOLIC_NOUNS.cases, RECURRENT.cases, SPD.cases])
def test_that_the_count_is_that_of_distinct_trials(cases) -> None:
    seen: list[Trial] = []

    def watched(trials: Sequence[Trial]) -> list[Outcome]:
        seen.extend(trials)
        return [replace(made(trial), scores={"accuracy": 0.5, "map": 0.5, "log_error": 0.5}) for trial in trials]

    by_name = {case.name: case for case in cases}
    for case in cases:
        compete(case, by_name[case.tuned_with or case.name], watched, PROTOCOL)
    assert count(cases, PROTOCOL) == len(set(seen)) == len({trial.key for trial in seen})


@pytest.mark.parametrize("found", [HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD], ids=lambda s: s.name)
def test_that_cases_name_what_there_is(found: TasksStudy) -> None:
    names = [case.name for case in found.cases]
    assert len(set(names)) == len(names)
    for i, case in enumerate(found.cases):
        assert case.template.task in TASKS
        assert case.template.manifold in MANIFOLDS
        assert case.template.task in NOTES
        # a mean over cases is one of the same score
        assert len({(c.score, c.unit, c.smaller) for c in found.cases if c.group == case.group}) == 1
        if case.tuned_with:
            other = found.cases[names.index(case.tuned_with)]
            assert names.index(case.tuned_with) < i
            assert not other.tuned_with
            assert (other.template.manifold, other.grid) == (case.template.manifold, case.grid)
    assert [case.label for case in found.quick().cases] == [case.label for case in found.little] != []
    assert len(found.protocol.final) >= (1 if found is HYPERBOLIC_NOUNS else 5)


def test_that_the_embeddings_are_all_that_were_asked_for() -> None:
    found = {(c.template.manifold, c.template.size, c.template.fraction) for c in HYPERBOLIC.cases if c.score == "map"}
    assert found == {(m, d, f) for m in ("poincare", "lorentz") for d in (2, 5, 10) for f in (0.0, 0.1, 0.5)}


def test_that_embeddings_are_tuned_without_the_test_edges_of_any_case() -> None:
    # the tenth held out is a part of the half, so that tuning on the half sees neither
    sources = {c.tuned_with or c.name for c in HYPERBOLIC.cases if c.score == "map" and c.template.fraction}
    assert sources == {"mammals-poincare-5-50", "mammals-lorentz-5-50"}


# ---- the study

TINY = TasksStudy("tiny", "", "Tiny", CASES, (), PROTOCOL)


@pytest.fixture
def trained(monkeypatch) -> list[Trial]:
    """Trials as they are trained, by making up their outcomes."""
    found: list[Trial] = []

    def here(trials, train, results: Results[Outcome], workers, *, bar) -> None:
        known = results.find(trials)
        bar.update(len(trials))
        for trial in trials:
            if trial not in known:
                found.append(trial)
                results.append(made(trial))

    monkeypatch.setattr(study, "collect", here)
    return found


def test_that_a_study_trains_each_trial_once_and_goes_on_where_it_was(trained, tmp_path, capsys) -> None:
    TINY.run(tmp_path, Workers())
    total = count(CASES, PROTOCOL)
    assert len(trained) == len(set(trained)) == total
    assert f"{total}/{total}" in capsys.readouterr().err
    lines = (tmp_path / "trials.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_text("".join(lines[:50]), encoding="utf-8")
    trained.clear()
    TINY.run(tmp_path, Workers())
    assert len(trained) == total - 50


def test_that_the_report_is_on_complete_cases_and_names_the_others(trained, tmp_path) -> None:
    with pytest.raises(NothingToReport, match=r"trials\.jsonl"):
        TINY.report(tmp_path)
    TINY.run(tmp_path, Workers())
    text = TINY.report(tmp_path)
    assert [line for line in text.splitlines() if line.startswith("### ")] == [f"### {case.label}" for case in CASES]
    assert "Settings were chosen on: the one." in text
    entries = [entries_of(case) for case in CASES]
    assert all(table in text for table in (overview(entries), conclusions(entries, 2), by_case(entries), RULE))
    assert "Seeds vary: initial weights, order; not the signals" in text
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert all(table in summary for table in (conclusions(entries, 2), overview(entries), by_case(entries)))
    assert f"{count(CASES, PROTOCOL)} runs, tuning included, took" in summary
    assert "Preliminary" not in summary
    # scores of one unit share an axis
    drawn = (tmp_path / "by-case.svg").read_text(encoding="utf-8")
    assert drawn.count("better than the base by (points)") == 1
    assert drawn.count("better than the base by (powers of ten of the error)") == 1
    lines = (tmp_path / "trials.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    assert "**Preliminary**: without errors." in TINY.report(tmp_path)


def test_that_trials_that_leave_their_manifold_are_shouted_about(trained, monkeypatch, tmp_path) -> None:
    TINY.run(tmp_path, Workers())
    kept = "All that did not diverge ended on their manifolds: the largest violation is 0.2 of"
    assert kept in TINY.report(tmp_path)
    text = (tmp_path / "trials.jsonl").read_text(encoding="utf-8")
    (tmp_path / "trials.jsonl").write_text(text.replace('"violation": 0.2', '"violation": 1.5', 1), encoding="utf-8")
    assert "**1 left their manifolds**" in TINY.report(tmp_path)
    # a trial of tuning too
    line = next(line for line in text.splitlines() if '"validation"' in line and '"violation": 0.1,' in line)
    off = text.replace(line, line.replace('"violation": 0.1', '"violation": 1.5'))
    (tmp_path / "trials.jsonl").write_text(off, encoding="utf-8")
    assert "**1 left their manifolds**" in TINY.report(tmp_path)


def test_that_trials_that_diverged_are_counted_by_method_and_asked_for_their_manifolds_too(trained, tmp_path) -> None:
    TINY.run(tmp_path, Workers())
    assert "None diverged." in TINY.report(tmp_path)
    lines = (tmp_path / "trials.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)

    def of(method: str) -> list[int]:
        return [i for i, line in enumerate(lines) if f'"method": "{method}"' in line and '"validation"' in line]

    off = of("rsam")[:2]
    for i in (*off, of("riemannian_adam")[0]):
        lines[i] = lines[i].replace('"diverged": false', '"diverged": true')
    for i in off:
        lines[i] = re.sub(r'"violation": [^,]*', '"violation": Infinity', lines[i])
    (tmp_path / "trials.jsonl").write_text("".join(lines), encoding="utf-8")
    said = "3 diverged (RSAM, SGD 2; RiemannianAdam 1), 2 of them off their manifolds."
    assert said in TINY.report(tmp_path)


@pytest.mark.parametrize("found", [HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD], ids=lambda s: s.name)
def test_that_every_method_has_settings_in_little(found: TasksStudy) -> None:
    for case in found.quick().cases:
        assert {len(case.grid.settings(method)) for method in METHODS} <= {1, 2}
