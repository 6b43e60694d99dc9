"""That comparisons on tasks tune all methods alike, train each trial once, and report the numbers of their rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import scipy.stats

from benchmarks.runs.parallel import Workers
from benchmarks.runs.results import Results
from benchmarks.runs.tuning import Protocol
from benchmarks.studies import HIERARCHIES, STUDIES, NothingToReport
from benchmarks.studies.tasks import HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD, TasksStudy, study
from benchmarks.studies.tasks.cases import Case, Grid
from benchmarks.studies.tasks.protocol import Entry, compete, count
from benchmarks.studies.tasks.report import against_base, case_table, improvement, overview
from benchmarks.tasks import TASKS
from benchmarks.tasks.methods import METHODS
from benchmarks.tasks.places import MANIFOLDS
from benchmarks.tasks.trial import Outcome, Trial

GRID = Grid((0.1, 0.2), (0.1, 0.2), (0.01, 0.02, 0.03), (0.01, 0.02, 0.03))
PROTOCOL = Protocol(first=(100,), kept=2, second=(101,), final=(0, 1, 2))
ONE = Case("one", "the one", Trial("emg", "", 0, 0.0, 0.0, manifold="stiefel", curvature=True), GRID)
OTHER = replace(ONE, name="other", label="the other", template=replace(ONE.template, size=3), tuned_with="one")
ERRORS = replace(
    ONE, name="errors", label="errors", template=replace(ONE.template, size=4), score="error", smaller=True
)
CASES = (ONE, OTHER, ERRORS)


def made(trial: Trial, diverged: bool = False) -> Outcome:
    """An outcome without training: random numbers of the trial, on validation data best at one setting."""
    rng = np.random.default_rng(int(trial.key, 16))
    value = float(rng.uniform(0.4, 0.5))
    if trial.heldout == "validation" and trial.lr == 0.2 and trial.knob in (0.02, 0.5):
        value = 0.9 if trial.size != 4 else 0.1
    return Outcome(
        run=trial,
        diverged=diverged,
        scores={} if diverged else {"accuracy": value, "error": value},
        train_loss=[1.0],
        curvature={"gradient_norm": 2.0, "trace": 4.0 ** (trial.seed % 2), "top_eigenvalue": -1.0},
        violation=0.1 * trial.seed,
        gradients=10,
        seconds_per_step=0.002,
        seconds=1.0,
        megabytes=100.0,
        device="cpu",
        torch_version="0",
    )


def collect(trials: Sequence[Trial]) -> list[Outcome]:
    return [made(trial) for trial in trials]


def entries_of(case: Case = ONE) -> list[Entry]:
    return compete(case, ONE if case.tuned_with else case, collect, PROTOCOL)


def rows_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


# ---- the protocol


def test_that_every_method_has_as_many_settings() -> None:
    for found in (HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD):
        for case in found.cases:
            sizes = {len(set(case.grid.settings(method))) for method in METHODS}
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
        base = METHODS[entry.method].base
        assert (entry.tuned.setting.lr, entry.tuned.setting.knob) == (0.2, 0.02 if base else 0.5)
        assert [row.run.seed for row in entry.rows] == list(PROTOCOL.final)
        assert {replace(row.run, seed=0) for row in entry.rows} == {entry.tuned.setting}


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
        return [replace(made(trial), scores={"accuracy": 0.5, "map": 0.5, "error": 0.5}) for trial in trials]

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
        if case.tuned_with:
            other = found.cases[names.index(case.tuned_with)]
            assert names.index(case.tuned_with) < i
            assert not other.tuned_with
            assert (other.template.manifold, other.grid) == (case.template.manifold, case.grid)
    assert set(found.little) <= set(names)
    assert len(found.quick().cases) == len(found.little)
    assert len(found.protocol.final) >= (1 if found is HYPERBOLIC_NOUNS else 5)


def test_that_the_embeddings_are_all_that_were_asked_for() -> None:
    found = {(c.template.manifold, c.template.size, c.template.fraction) for c in HYPERBOLIC.cases if c.score == "map"}
    assert found == {(m, d, f) for m in ("poincare", "lorentz") for d in (2, 5, 10) for f in (0.0, 0.1, 0.5)}


def test_that_the_hierarchies_are_studies() -> None:
    assert HIERARCHIES["mammals"] is STUDIES["hyperbolic"]
    assert {c.template.task for c in HIERARCHIES["nouns"].cases} == {"nouns"}  # type: ignore[attr-defined]


# ---- tables


def values(entry: Entry) -> np.ndarray:
    return np.array([100 * row.scores[entry.case.score] for row in entry.rows])


def interval(numbers: np.ndarray, level: float = 0.95) -> str:
    """Mean and half of Student's interval, by scipy."""
    found = scipy.stats.ttest_1samp(numbers, 0).confidence_interval(level)
    return f"{numbers.mean():.2f} ± {(found.high - found.low) / 2:.2f}"


@pytest.mark.parametrize("case", [ONE, ERRORS], ids=lambda case: case.name)
def test_that_the_table_of_a_case_shows_scores_and_paired_differences(case) -> None:
    entries = entries_of(case)
    of = {entry.method: entry for entry in entries}
    for row, entry in zip(rows_of(case_table(entries)), entries, strict=True):
        assert row[0] == METHODS[entry.method].label
        assert row[1] == interval(values(entry))
        base = METHODS[entry.method].base
        if not base:
            assert row[3:5] == ["", ""]
            continue
        better = (values(entry) - values(of[base])) * (-1 if case.smaller else 1)
        assert row[3] == interval(better)
        # four methods have a base
        assert float(row[4]) == pytest.approx(min(1, 4 * scipy.stats.ttest_1samp(better, 0).pvalue), abs=6e-4)
        # geometric mean of 1, 4, 1; a negative eigenvalue is left out, which leaves none
        assert row[5:8] == ["2", f"{4 ** (1 / 3):.3g}", "nan"]


def test_that_the_ascent_is_compared_with_its_base_with_simultaneous_intervals() -> None:
    cases = [entries_of(case) for case in CASES]
    for row, entries in zip(rows_of(against_base(cases)), cases, strict=True):
        of = {entry.method: entry for entry in entries}
        pairs = [(m, METHODS[m].base) for m in METHODS if METHODS[m].base]
        pairs += [("rsam", "projected_sam"), ("rsam_adam", "projected_sam_adam")]
        for cell, (name, other) in zip(row[1:], pairs, strict=True):
            better = np.array(improvement(of[name], of[other]))
            assert cell.startswith(interval(better, 1 - 0.05 / len(cases)))
            p = min(1, len(cases) * scipy.stats.ttest_1samp(better, 0).pvalue)
            assert float(re.findall(r"\(p ([\d.]+)\)", cell)[0]) == pytest.approx(p, abs=6e-4)


def test_that_trials_that_diverged_are_counted_and_left_out() -> None:
    entries = entries_of()
    first = entries[0]
    broken = replace(first, rows=[made(first.rows[0].run, diverged=True), *first.rows[1:]])
    table = rows_of(case_table([broken, *entries[1:]]))
    assert [row[-1] for row in table] == ["1", *[""] * 5]
    assert table[0][1] == interval(values(replace(first, rows=first.rows[1:]))) + " (2 of 3)"
    other = entries[1]
    assert table[1][3] == interval(values(other)[1:] - values(first)[1:])
    gone = replace(first, rows=[made(row.run, diverged=True) for row in first.rows])
    assert rows_of(overview([[gone, *entries[1:]]]))[0][2] == "diverged"
    assert rows_of(against_base([[gone, *entries[1:]]]))[0][1] == "diverged"


def test_that_the_overview_has_every_method_on_every_case() -> None:
    cases = [entries_of(case) for case in CASES]
    for row, entries in zip(rows_of(overview(cases)), cases, strict=True):
        assert row[0] == entries[0].case.label
        assert [float(cell.split()[0]) for cell in row[2:]] == [
            pytest.approx(fmean(values(entry)), abs=0.051) for entry in entries
        ]


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
    assert "Not complete" not in text
    assert overview([entries_of(case) for case in CASES]) in text
    assert (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines()[0] in text
    assert (tmp_path / "minus-base.svg").is_file()
    lines = (tmp_path / "trials.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    assert "Not complete yet: errors." in TINY.report(tmp_path)


def test_that_trials_that_leave_their_manifold_are_shouted_about(trained, monkeypatch, tmp_path) -> None:
    TINY.run(tmp_path, Workers())
    assert (
        "All that did not diverge stayed on their manifolds: the largest violation at the end of a trial is 0.2 of"
        in TINY.report(tmp_path)
    )
    text = (tmp_path / "trials.jsonl").read_text(encoding="utf-8")
    (tmp_path / "trials.jsonl").write_text(text.replace('"violation": 0.2', '"violation": 1.5', 1), encoding="utf-8")
    assert "**1 left their manifolds**" in TINY.report(tmp_path)


@pytest.mark.parametrize("found", [HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD], ids=lambda s: s.name)
def test_that_every_method_has_settings_in_little(found: TasksStudy) -> None:
    for case in found.quick().cases:
        assert {len(case.grid.settings(method)) for method in METHODS} <= {1, 2}


def test_that_one_seed_shows_differences_without_intervals() -> None:
    entries = [replace(entry, rows=entry.rows[:1]) for entry in entries_of()]
    of = {entry.method: entry for entry in entries}
    cell = rows_of(against_base([entries]))[0][1]
    assert cell == f"{improvement(of['rsam'], of['riemannian_sgd'])[0]:.2f}"
    assert "nan" not in "".join(row[4] for row in rows_of(case_table(entries)))
