"""That comparisons on manifolds tune all methods alike, train each run once, and report the numbers of their rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.methods import METHODS
from benchmarks.run import Row, Run
from benchmarks.runs.parallel import Workers
from benchmarks.runs.results import Results
from benchmarks.studies import NothingToReport
from benchmarks.studies.comparison import study
from benchmarks.studies.comparison.contest import compete, count
from benchmarks.studies.comparison.study import ComparisonStudy
from benchmarks.studies.manifold_tasks import HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD
from benchmarks.studies.manifold_tasks.answers import RULE
from benchmarks.studies.manifold_tasks.report import RULES
from benchmarks.studies.manifold_tasks.tables import by_case, conclusions, overview
from tests.benchmarks.manifold_cases import CASES, ERRORS, NOTE, ONE, OTHER, PROTOCOL, collect, entries_of, made

# ---- the protocol


def test_that_every_method_has_as_many_settings() -> None:
    for found in (HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD):
        for case in found.cases:
            sizes = {len(set(case.settings(contestant))) for contestant in case.contestants}
            assert {c.method for c in case.contestants} <= METHODS.keys()
            # runs of bases at the settings of an ascent
            assert (case.template.momentum, case.template.beta) == (0.9, 0.9)
            assert sizes == ({1} if found is HYPERBOLIC_NOUNS else {12})


def test_that_tuning_sees_validation_data_and_final_trials_the_test_data_with_other_seeds() -> None:
    seen: list[Run] = []

    def watched(runs: Sequence[Run]) -> list[Row]:
        seen.extend(runs)
        return collect(runs)

    entries = compete(ONE, watched, PROTOCOL)
    for run in seen:
        assert (run.heldout == "test") == (run.seed in PROTOCOL.final) == bool(run.measures)
    for entry in entries:
        contestant = entry.contestant
        chosen = 0.02 if contestant.base else 0.9 if contestant.settings_of else 0.5
        setting = entry.tuned.setting
        assert (setting.lr, contestant.grid.knob.of(setting)) == (0.2, chosen)
        assert [row.run.seed for row in entry.rows] == list(PROTOCOL.final)
        assert {replace(row.run, seed=0) for row in entry.rows} == {entry.tuned.setting}
        # a base that trains twice as long uses as many gradient evaluations as an ascent, and is tuned for that
        twice = 2 if entry.name.endswith("_twice") else 1
        assert {row.run.epochs for row in entry.rows} == {twice * ONE.template.epochs}
        assert {setting.epochs for setting in entry.tuned.scores} == {twice * ONE.template.epochs}


def test_that_nothing_but_the_ascent_differs_from_a_base_that_takes_its_settings() -> None:
    def prefers(runs: Sequence[Run]) -> list[Row]:
        """Score best another learning rate for RSAM than for its base."""
        return [
            replace(made(replace(r, lr=round(0.3 - r.lr, 1)) if r.method.startswith("rsam") else r), run=r)
            for r in runs
        ]

    found = {entry.name: entry for entry in compete(ONE, prefers, PROTOCOL)}
    assert found["riemannian_sgd"].tuned.setting.lr == 0.2
    for ascent, alike in (("rsam", "riemannian_sgd_alike"), ("rsam_adam", "riemannian_adam_alike")):
        setting = found[alike].tuned.setting
        assert setting == replace(found[ascent].tuned.setting, method=alike.removesuffix("_alike"))
        assert setting.lr == 0.1
        assert {replace(row.run, seed=0) for row in found[alike].rows} == {setting}


def test_that_errors_are_tuned_to_be_small() -> None:
    assert {entry.tuned.setting.lr for entry in entries_of(ERRORS)} == {0.2}


def test_that_a_case_takes_the_settings_of_another() -> None:
    for entry in entries_of(OTHER):
        assert entry.tuned.setting.workload == ONE.template.workload
        for row in entry.rows:
            assert row.run == replace(entry.tuned.setting, workload=OTHER.template.workload, seed=row.run.seed)


def test_that_settings_that_diverge_are_not_chosen() -> None:
    def fails(runs: Sequence[Run]) -> list[Row]:
        return [made(run, diverged=run.lr == 0.2) for run in runs]

    assert {entry.tuned.setting.lr for entry in compete(ONE, fails, PROTOCOL)} == {0.1}


@pytest.mark.parametrize("cases", [CASES, HYPERBOLIC.cases, HYPERBOLIC_NOUNS.cases, RECURRENT.cases, SPD.cases])
def test_that_the_count_is_that_of_distinct_trials(cases) -> None:
    seen: list[Run] = []

    def watched(runs: Sequence[Run]) -> list[Row]:
        seen.extend(runs)
        return [replace(made(run), scores={"accuracy": 0.5, "map": 0.5, "log_error": 0.5}) for run in runs]

    by_name = {case.name: case for case in cases}
    for case in cases:
        compete(case, watched, PROTOCOL, by_name[case.tuned_with or case.name])
    assert count(cases, PROTOCOL) == len(set(seen)) == len({run.key for run in seen})


@pytest.mark.parametrize("found", [HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD], ids=lambda s: s.name)
def test_that_cases_name_what_there_is(found: ComparisonStudy) -> None:
    names = [case.name for case in found.cases]
    assert len(set(names)) == len(names)
    for i, case in enumerate(found.cases):
        assert case.note
        # cases of a group have the same score, so that a mean over them makes sense
        assert len({(c.score.name, c.score.unit, c.score.smaller) for c in found.cases if c.group == case.group}) == 1
        if case.tuned_with:
            other = found.cases[names.index(case.tuned_with)]
            assert names.index(case.tuned_with) < i
            assert not other.tuned_with
            assert other.contestants == case.contestants
    assert [case.label for case in found.quick().cases] == [case.label for case in found.quick_cases] != []
    assert len(found.protocol.final) >= (1 if found is HYPERBOLIC_NOUNS else 5)


def test_that_the_embeddings_are_all_that_were_asked_for() -> None:
    workloads = [c.template.workload for c in HYPERBOLIC.cases if c.score.name == "map"]
    found = {(w.space, w.dimension, w.fraction) for w in workloads}  # type: ignore[attr-defined]
    assert found == {(m, d, f) for m in ("poincare", "lorentz") for d in (2, 5, 10) for f in (0.0, 0.1, 0.5)}


def test_that_embeddings_are_tuned_without_the_test_edges_of_any_case() -> None:
    # the held-out tenth is a part of the half, so that tuning with the half sees neither
    sources = {c.tuned_with or c.name for c in HYPERBOLIC.cases if c.group.endswith("held out")}
    assert sources == {"mammals-poincare-5-50", "mammals-lorentz-5-50"}


# ---- the study

TINY = ComparisonStudy("tiny", "", "Tiny", "Who wins?", CASES, (), RULES, PROTOCOL)


@pytest.fixture
def trained(monkeypatch) -> list[Run]:
    """Replace training by made-up rows, and record the runs."""
    found: list[Run] = []

    def here(runs, train, results: Results[Row], workers, *, bar) -> None:
        known = results.find(runs)
        bar.update(len(runs))
        for run in runs:
            if run not in known:
                found.append(run)
                results.append(made(run))

    monkeypatch.setattr(study, "collect", here)
    return found


def test_that_a_study_trains_each_trial_once_and_goes_on_where_it_was(trained, tmp_path, capsys) -> None:
    TINY.run(tmp_path, Workers())
    total = count(CASES, PROTOCOL)
    assert len(trained) == len(set(trained)) == total
    assert f"{total}/{total}" in capsys.readouterr().err
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(lines[:50]), encoding="utf-8")
    trained.clear()
    TINY.run(tmp_path, Workers())
    assert len(trained) == total - 50


def test_that_the_report_is_on_complete_cases_and_names_the_others(trained, tmp_path) -> None:
    with pytest.raises(NothingToReport, match=r"rows\.jsonl"):
        TINY.report(tmp_path)
    TINY.run(tmp_path, Workers())
    text = TINY.report(tmp_path)
    assert [line for line in text.splitlines() if line.startswith("### ")] == [f"### {case.label}" for case in CASES]
    assert "Settings were chosen on: the one." in text
    entries = [entries_of(case) for case in CASES]
    assert all(table in text for table in (overview(entries), conclusions(entries, 2), by_case(entries), RULE))
    assert f"Seeds vary {NOTE}." in text
    assert f"{count(CASES, PROTOCOL)} runs, tuning included, took" in text
    assert "Preliminary" not in text
    # scores of one unit share an axis
    drawn = (tmp_path / "by-case.svg").read_text(encoding="utf-8")
    assert drawn.count("better than the base by (points)") == 1
    assert drawn.count("better than the base by (powers of ten)") == 1
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    assert "**Preliminary**: without errors." in TINY.report(tmp_path)


def test_that_trials_that_leave_their_manifold_are_shouted_about(trained, monkeypatch, tmp_path) -> None:
    TINY.run(tmp_path, Workers())
    kept = "All runs that did not diverge ended on their manifolds: the largest violation is 0.2 times"
    assert kept in TINY.report(tmp_path)
    text = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(text.replace('"violation": 0.2', '"violation": 1.5', 1), encoding="utf-8")
    assert "**1 left their manifolds**" in TINY.report(tmp_path)
    # runs of tuning too
    line = next(line for line in text.splitlines() if '"validation"' in line and '"violation": 0.1,' in line)
    off = text.replace(line, line.replace('"violation": 0.1', '"violation": 1.5'))
    (tmp_path / "rows.jsonl").write_text(off, encoding="utf-8")
    assert "**1 left their manifolds**" in TINY.report(tmp_path)


def test_that_trials_that_diverged_are_counted_by_method_and_asked_for_their_manifolds_too(trained, tmp_path) -> None:
    TINY.run(tmp_path, Workers())
    assert "None diverged." in TINY.report(tmp_path)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)

    def of(method: str) -> list[int]:
        return [i for i, line in enumerate(lines) if f'"method": "{method}"' in line and '"validation"' in line]

    off = of("rsam")[:2]
    for i in (*off, of("riemannian_adam")[0]):
        lines[i] = lines[i].replace('"diverged": false', '"diverged": true')
    for i in off:
        lines[i] = re.sub(r'"violation": [^,]*', '"violation": Infinity', lines[i])
    (tmp_path / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    said = "3 diverged (RSAM, SGD 2; RiemannianAdam 1), 2 of them off their manifolds."
    assert said in TINY.report(tmp_path)


@pytest.mark.parametrize("found", [HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD], ids=lambda s: s.name)
def test_that_every_method_has_settings_in_the_quick_version(found: ComparisonStudy) -> None:
    for case in found.quick().cases:
        assert {len(case.settings(contestant)) for contestant in case.contestants} <= {1, 2}
