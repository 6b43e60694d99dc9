"""That contestants are tuned alike, without test data and without the final seeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from benchmarks.data import DATASETS
from benchmarks.methods import METHODS
from benchmarks.run import Knob, Row, Run
from benchmarks.studies.ablations import MOVED
from benchmarks.studies.comparison.cases import Case, Grid
from benchmarks.studies.comparison.contest import Entry, compete, count
from benchmarks.studies.comparison.study import ComparisonStudy
from benchmarks.studies.comparison.tuning import Protocol, Tuned, tune
from benchmarks.studies.images import OPTIMIZERS, OPTIMIZERS_LARGE
from benchmarks.studies.images.cases import LARGE, QUICK_CASES, QUICK_LARGE_CASES, SMALL
from benchmarks.studies.images.contestants import CHECK, CHECKED, CONTESTANTS
from benchmarks.workloads.images import as_images
from benchmarks.workloads.networks import MODELS
from tests.benchmarks.entries import Recorder, made_case, made_row

PROTOCOL = Protocol(first=(100, 101), kept=2, second=(102, 103, 104), final=(0, 1, 2))
CASES = [case for cases in (SMALL, LARGE, QUICK_CASES, QUICK_LARGE_CASES) for case in cases]
STUDIES = [OPTIMIZERS, OPTIMIZERS.quick(), OPTIMIZERS_LARGE, OPTIMIZERS_LARGE.quick()]
SETTINGS = 20


def tuned(
    settings: dict[str, Sequence[str]], score: Callable[[str, int], float], protocol: Protocol = PROTOCOL
) -> tuple[dict[str, Tuned], list[list[tuple[str, int]]]]:
    """Tune over settings that are names, with runs that are names and seeds; return choices and collected runs."""
    calls: list[list[tuple[str, int]]] = []

    def collect(runs: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        calls.append(list(runs))
        return runs

    return tune(settings, collect, lambda s, seed: (s, seed), lambda run: score(*run), protocol), calls  # type: ignore


# ---- the rule


@pytest.mark.parametrize("best", range(5))
def test_that_the_best_setting_of_each_contestant_is_chosen_wherever_it_is(best) -> None:
    settings = {"x": [f"x{i}" for i in range(5)], "y": [f"y{i}" for i in range(5)]}
    means = {"x": best, "y": (best + 2) % 5}
    actual, _ = tuned(settings, lambda s, seed: -abs(int(s[1]) - means[s[0]]) + 0.001 * seed)
    assert {k: t.setting for k, t in actual.items()} == {k: f"{k}{i}" for k, i in means.items()}


def test_that_all_settings_get_the_first_seeds_and_the_best_few_the_others() -> None:
    quality = {"a": 0.1, "b": 0.8, "c": 0.3, "d": 0.7, "p": 0.9, "q": 0.2, "r": 0.5, "s": 0.4}
    _, (first, second) = tuned({"x": ["a", "b", "c", "d"], "y": ["p", "q", "r", "s"]}, lambda s, seed: quality[s])
    assert Counter(first) == Counter((s, seed) for s in quality for seed in (100, 101))
    assert Counter(second) == Counter((s, seed) for s in "bdpr" for seed in (102, 103, 104))


def test_that_who_wins_the_first_seed_by_luck_loses_to_who_is_better_in_the_mean() -> None:
    # "lucky" leads with seed 100 alone; over all four seeds its mean is 0.6, and that of "better" 0.7
    scores = {"lucky": (0.9, 0.5, 0.5, 0.5), "better": (0.7, 0.7, 0.7, 0.7), "worst": (0.1, 0.99, 0.99, 0.99)}
    protocol = Protocol(first=(100,), kept=2, second=(101, 102, 103), final=(0,))
    actual, _ = tuned({"x": list(scores)}, lambda s, seed: scores[s][seed - 100], protocol)
    assert actual["x"].setting == "better"
    assert actual["x"].score == pytest.approx(0.7)
    assert actual["x"].scores == pytest.approx({"lucky": 0.6, "better": 0.7, "worst": 0.1})


def test_that_the_first_seeds_count_in_the_choice() -> None:
    # "late" leads over the second seeds alone; over all seeds its mean is 0.45, and that of "early" 0.5
    scores = {"early": (0.8, 0.4, 0.4, 0.4), "late": (0.3, 0.5, 0.5, 0.5)}
    protocol = Protocol(first=(100,), kept=2, second=(101, 102, 103), final=(0,))
    actual, _ = tuned({"x": list(scores)}, lambda s, seed: scores[s][seed - 100], protocol)
    assert actual["x"].setting == "early"


def test_that_several_first_seeds_decide_by_their_mean() -> None:
    scores = {"one peak": (1.0, 0.0), "even": (0.6, 0.6), "low": (0.3, 0.3)}
    protocol = Protocol(first=(100, 101), kept=1, second=(102,), final=(0,))
    actual, calls = tuned({"x": list(scores)}, lambda s, seed: (*scores[s], 0.0)[seed - 100], protocol)
    assert actual["x"].setting == "even"
    assert calls[1] == [("even", 102)]


def test_that_a_setting_that_was_dropped_is_not_chosen_for_its_mean_over_fewer_seeds() -> None:
    # the mean of "kept" falls to 0.45, below the score 0.6 of "dropped" with its only seed
    scores = {"dropped": (0.6, None), "kept": (0.7, 0.2)}
    protocol = Protocol(first=(100,), kept=1, second=(101,), final=(0,))
    actual, _ = tuned({"x": list(scores)}, lambda s, seed: scores[s][seed - 100], protocol)
    assert actual["x"].setting == "kept"


def test_that_of_equal_settings_the_first_is_kept_and_chosen() -> None:
    actual, calls = tuned({"x": ["c", "a", "d", "b"]}, lambda s, seed: 0.5)
    assert actual["x"].setting == "c"
    assert [run for run in calls[1] if run[1] == 102] == [("c", 102), ("a", 102)]


def test_that_scores_go_to_the_settings_that_they_are_of() -> None:
    # each run has a different score, so that a wrong order would be noticed
    settings = {"x": ["a", "b", "c"], "y": ["d", "e", "f"]}
    actual, _ = tuned(settings, lambda s, seed: ord(s) * 1000 + seed)
    for k, grid_of_k in settings.items():
        dropped, *kept = grid_of_k
        means = {dropped: ord(dropped) * 1000 + 100.5} | {s: ord(s) * 1000 + 102 for s in kept}
        assert actual[k].scores == pytest.approx(means, abs=1e-6)
        assert actual[k].score == pytest.approx(means[actual[k].setting], abs=1e-6)


def test_that_final_seeds_are_not_used() -> None:
    _, calls = tuned({"x": ["a", "b", "c"]}, lambda s, seed: ord(s))
    assert not {seed for call in calls for _, seed in call} & set(PROTOCOL.final)


@pytest.mark.parametrize("size", [2, 3, 20])
def test_that_each_contestant_gets_the_budget(size) -> None:
    settings = {k: [f"{k}{i}" for i in range(size)] for k in "xyz"}
    _, calls = tuned(settings, lambda s, seed: int(s[1:]) % 7)
    runs = Counter(run[0][0] for call in calls for run in call)
    assert runs == dict.fromkeys("xyz", PROTOCOL.budget(size))
    assert PROTOCOL.budget(size) == 2 * size + 3 * min(size, 2)


def test_that_a_single_setting_is_not_tuned() -> None:
    actual, calls = tuned({"x": ["a"], "y": ["b"]}, lambda s, seed: 0.5)
    assert calls == []
    assert PROTOCOL.budget(1) == 0
    assert actual["x"].setting == "a" and actual["x"].kept == ("a",)
    assert math.isnan(actual["x"].score)


def test_that_grids_of_different_sizes_are_refused_before_anything_is_trained() -> None:
    def collect(runs: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
        raise AssertionError("trained")

    with pytest.raises(ValueError, match="grids of different sizes"):
        tune({"x": ["a", "b"], "y": ["c"]}, collect, lambda s, seed: (s, seed), lambda run: 0.0, PROTOCOL)  # type: ignore


@pytest.mark.parametrize("seeds", [{"first": (7,)}, {"second": (8, 2)}, {"final": (5, 1000)}])
def test_that_seeds_of_tuning_among_the_final_ones_are_refused(seeds) -> None:
    with pytest.raises(ValueError, match="must differ"):
        Protocol(**seeds)
    Protocol(first=(7,), second=(8,), final=(9,))


@pytest.mark.parametrize(
    "seeds", [{"first": (100,), "second": (101, 100)}, {"first": (100, 100)}, {"final": (1, 2, 1)}]
)
def test_that_a_seed_that_would_count_twice_is_refused(seeds) -> None:
    with pytest.raises(ValueError, match="differ"):
        Protocol(**seeds)


# ---- the grids


@pytest.mark.parametrize("name", CONTESTANTS)
def test_that_each_grid_is_a_product_of_the_size_of_all(name) -> None:
    grid = CONTESTANTS[name].grid
    settings = grid.pairs()
    assert len(settings) == len(set(settings)) == SETTINGS
    assert set(settings) == {(lr, knob) for lr in grid.rates for knob in grid.values}
    # both axes have values between their ends
    assert len(grid.rates) >= 3
    assert len(grid.values) >= 3
    assert min(grid.rates) > 0
    assert min(grid.values) > 0


def test_that_methods_that_are_compared_choose_from_the_same_rates_and_radii() -> None:
    sam_like = [c for c in CONTESTANTS.values() if c.grid.knob is Knob.RHO and c.name != "asam"]
    assert len(sam_like) > 5
    assert {c.grid for c in sam_like} == {CONTESTANTS["sam"].grid}
    for one, other in (
        ("sgd", "riemannian_sgd"),
        ("riemannian_sgd", "riemannian_sgd_stiefel"),
        ("riemannian_adam", "riemannian_adam_stiefel"),
    ):
        assert CONTESTANTS[one].grid == CONTESTANTS[other].grid


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: f"{study.name}-{len(study.protocol.final)}")
def test_that_all_methods_of_a_study_have_as_many_settings(study) -> None:
    (size,) = {len(set(case.settings(c))) for case in study.cases for c in case.contestants}
    assert size == (SETTINGS if study in (OPTIMIZERS, OPTIMIZERS_LARGE) else 2)
    assert size >= study.protocol.kept


@pytest.mark.parametrize("name", CONTESTANTS)
def test_that_the_few_settings_of_a_quick_study_are_among_all_of_them(name) -> None:
    grid = CONTESTANTS[name].grid
    assert set(grid.corner().pairs()) < set(grid.pairs())


# ---- the cases


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.template.epochs}")
def test_that_all_that_a_case_names_exists(case) -> None:
    dataset = as_images(case.template.workload).dataset
    assert dataset in DATASETS or dataset.removeprefix("imagefolder:") not in ("", dataset)
    assert as_images(case.template.workload).model in MODELS
    names = [c.name for c in case.contestants]
    assert {c.method for c in case.contestants} <= set(METHODS)
    assert len(set(names)) == len(names)
    # the methods of the verdicts and of the columns beside SAM
    assert {"sgd", CHECKED, "rsam", "rsam_stiefel"} <= set(names)
    assert {"gradient_norm", "hessian_trace"} <= set(names) or not case.main


@pytest.mark.parametrize("cases", [SMALL, LARGE, QUICK_CASES, QUICK_LARGE_CASES])
def test_that_cases_of_a_study_have_names_of_their_own_and_differ(cases) -> None:
    assert len({case.name for case in cases}) == len({case.template for case in cases}) == len(cases)
    assert any(case.main for case in cases)


@pytest.mark.parametrize("case", [*CASES, MOVED], ids=lambda case: f"{case.name}-{case.template.epochs}")
def test_that_contestants_differ_in_method_kernels_epochs_and_setting_only(case) -> None:
    runs = {c: case.run(c, 0.123, 0.456) for c in case.contestants}
    assert len(set(runs.values())) == len(runs)
    for contestant, run in runs.items():
        assert (run.method, run.epochs, run.lr) == (contestant.method, case.epochs(contestant), 0.123)
        assert contestant.grid.knob.of(run) == 0.456
        back = contestant.grid.knob.turn(run, contestant.grid.knob.of(case.template))
        same = replace(back, method="", lr=0.0, epochs=case.template.epochs)
        assert run.workload == replace(as_images(case.template.workload), kernels=contestant.kernels)
        assert replace(same, workload=case.template.workload) == case.template


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.template.epochs}")
def test_that_each_method_competes_at_the_epochs_of_its_case_and_once_at_equal_gradients(case) -> None:
    epochs, gradients = case.template.epochs, METHODS[CHECKED].gradients
    at_case = [c for c in case.contestants if c.passes == 1]
    again = [c for c in case.contestants if c.passes != 1]
    cost_other = [(c.method, c.kernels) for c in at_case if METHODS[c.method].gradients != gradients]
    assert [(c.method, c.kernels) for c in again] == (cost_other if again else [])
    for c in again:
        # epochs are whole numbers, so that the cost equals SAM's up to half an epoch
        cost = METHODS[c.method].gradients
        assert abs(case.epochs(c) * cost - epochs * gradients) <= cost / 2


def test_that_the_small_cases_compete_at_equal_gradients_and_differ_from_sams_by_little() -> None:
    for case in SMALL:
        again = [c for c in case.contestants if c.passes != 1]
        assert again
        for c in again:
            ratio = case.epochs(c) * METHODS[c.method].gradients / (case.template.epochs * METHODS[CHECKED].gradients)
            assert ratio == pytest.approx(1, abs=0.05)


# ---- the protocol

METHODS_HERE = ("sgd", "peer_sam", "hessian_trace", "sam", "rsam")


def with_grid(case: Case) -> Case:
    """Give each contestant a grid of six settings."""
    grids = [replace(c, grid=Grid(c.grid.knob, (0.01, 0.1, 1.0), (0.2, 0.4))) for c in case.contestants]
    return replace(case, contestants=tuple(grids))


CASE = with_grid(made_case(METHODS_HERE, equal_gradients=True))
# if the peer were tuned, its best setting would differ from SAM's
BEST = {"sgd": (0.1, 0.2), "sam": (1.0, 0.4), "peer_sam": (0.01, 0.2), "hessian_trace": (0.01, 0.4), "rsam": (0.1, 0.4)}


def competed(case: Case = CASE) -> tuple[list[Entry], Recorder]:
    """Return entries and runs, with one best setting per method, which is the worst on test data."""

    def row(run: Run) -> Row:
        best = (run.lr, CONTESTANTS[run.method].grid.knob.of(run)) == BEST[run.method]
        return made_row(run, accuracy=0.8 if best == (run.heldout == "validation") else 0.3)

    collect = Recorder(row)
    return compete(case, collect, PROTOCOL), collect


def test_that_tuning_sees_validation_data_only_and_measures_nothing_else() -> None:
    _, collect = competed()
    *tuning, final = collect.calls
    assert len(tuning) == 2
    for run in (run for call in tuning for run in call):
        assert run.heldout == "validation"
        assert run.measures == ()
        assert run.seed in (*PROTOCOL.first, *PROTOCOL.second)
    assert {run.seed for run in final} == set(PROTOCOL.final)


def test_that_final_runs_take_the_chosen_setting_on_test_data_and_measure_curvature() -> None:
    entries, collect = competed()
    assert tuple(e.contestant for e in entries) == CASE.contestants
    assert sum(len(e.rows) for e in entries) == len(collect.calls[-1])
    for entry in entries:
        method = entry.contestant.method
        best = BEST["sam" if method == CHECK else method]
        assert [row.run.seed for row in entry.rows] == list(PROTOCOL.final)
        for row in entry.rows:
            assert (row.run.method, row.run.epochs) == (method, entry.epochs)
            assert (row.run.lr, entry.contestant.grid.knob.of(row.run)) == best
            assert row.run.heldout == "test"
            assert row.run.measures == CASE.template.measures != ()
            assert replace(row.run, seed=entry.tuned.setting.seed) == entry.tuned.setting


def test_that_final_runs_differ_from_their_tuning_runs_in_nothing_that_trains() -> None:
    entries, collect = competed()
    tuning = {run for call in collect.calls[:-1] for run in call}
    for entry in entries:
        if entry.name != CHECK:
            setting = replace(entry.tuned.setting, heldout="validation", measures=())
            assert {replace(setting, seed=seed) for seed in (*PROTOCOL.first, *PROTOCOL.second)} <= tuning


def test_that_the_peer_is_not_tuned_and_takes_the_settings_of_ours() -> None:
    entries, collect = competed()
    assert not [run for call in collect.calls[:-1] for run in call if run.method == CHECK]
    peer = next(e for e in entries if e.name == CHECK)
    ours = next(e for e in entries if e.name == CHECKED)
    assert peer.tuned.setting == replace(ours.tuned.setting, method=CHECK)
    assert peer.tuned.scores == ours.tuned.scores
    assert [replace(row.run, method=CHECKED) for row in peer.rows] == [row.run for row in ours.rows]


def test_that_a_method_at_equal_gradients_is_tuned_anew() -> None:
    def row(run: Run) -> Row:
        rate = 1.0 if run.epochs == CASE.template.epochs else 0.01
        return made_row(run, accuracy=0.8 if run.lr == rate else 0.3)

    entries = compete(CASE, Recorder(row), PROTOCOL)
    rates = {(e.contestant.method, e.epochs): e.tuned.setting.lr for e in entries}
    assert rates[("sgd", 4)] == 1.0
    assert rates[("sgd", 8)] == 0.01
    assert rates[("hessian_trace", 3)] == 0.01


@pytest.mark.parametrize("case", [CASE, made_case(), *SMALL, LARGE[2], *QUICK_CASES, QUICK_LARGE_CASES[0]])
def test_that_the_count_of_runs_is_that_of_the_distinct_ones_that_are_asked_for(case) -> None:
    collect = Recorder()
    compete(case, collect, PROTOCOL)
    assert count([case], PROTOCOL) == len(collect.runs) == len(set(collect.runs))
    assert len({run.key for run in collect.runs}) == len(collect.runs)


@pytest.mark.parametrize("study", [*STUDIES[:-1], STUDIES[-1]])
def test_that_runs_of_a_study_are_distinct_over_its_cases(study: ComparisonStudy) -> None:
    runs = []
    for case in study.cases:
        collect = Recorder()
        compete(case, collect, study.protocol)
        runs += collect.runs
        final = [run for run in collect.runs if run.heldout == "test"]
        assert {run.seed for run in final} == set(study.protocol.final)
        assert not {run.seed for run in collect.runs if run.heldout != "test"} & set(study.protocol.final)
        assert collect.runs[-len(final) :] == final
    assert len(runs) == count(study.cases, study.protocol)
    assert len(set(runs)) == len(runs)
