"""That the tables of the comparison show the numbers of its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from benchmarks.report.intervals import compare
from benchmarks.run import Row
from benchmarks.studies.comparison.contest import find
from benchmarks.studies.images import tables
from benchmarks.studies.images.claims import Verdict, gap
from benchmarks.studies.images.contestants import CONTESTANTS
from tests.benchmarks.comparisons import ASKED, MEASURES, SEEDS, made_up, percent, shown, table_of
from tests.benchmarks.entries import made_case, made_entry


def test_that_the_table_of_a_case_shows_each_contestant_beside_sam() -> None:
    entries = made_up(made_case(ASKED))
    sam = find(entries, "sam")
    rows = table_of(tables.case_table(entries, sam))
    assert [row["method"] for row in rows] == [e.contestant.label for e in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert row["epochs"] == "4"
        assert row["test accuracy, %"] == shown(percent(entry), 2)
        train = [100 * r.scores["train_accuracy"] for r in entry.rows]
        assert row["train, %"] == f"{np.mean(train):.1f}"
        assert row["train loss"] == f"{np.mean([r.scores['train_loss'] for r in entry.rows]):.3f}"
        assert row["gap"] == f"{np.mean(train - percent(entry)):.1f}"
        if entry is sam:
            assert (row["minus SAM"], row["p"]) == ("", "")
        else:
            assert row["minus SAM"] == shown(percent(entry) - percent(sam), 2)
            # six methods are compared with SAM
            p = min(1, 6 * scipy.stats.ttest_rel(percent(entry), percent(sam)).pvalue)
            assert row["p"] == tables.p_value(p)
        labels = ("gradient norm", "Hessian trace", "top eigenvalue", "m-sharpness", "distance moved")
        for label, measure in zip(labels, MEASURES, strict=True):
            mean = scipy.stats.gmean([r.measures[measure] for r in entry.rows])
            assert row[label] == f"{mean:.3g}"
        assert row["lr"] == "0.03"
        assert row["knob"] == f"{entry.contestant.grid.knob.label} 0.1"
        assert row["validation, %"] == "60.0"
        assert row["ms per step"] == "10.0"
        assert row["diverged"] == ""
    assert len({row["p"] for row in rows}) > 3


def test_that_the_table_says_how_many_diverged_and_takes_curvature_of_the_others() -> None:
    case = made_case(("sam", "sgd"))
    sgd = made_entry(case, "sgd", [0.1, 0.6, 0.7], {"trace": [5.0, 2.0, 8.0]}, diverged=[0])
    sam = made_entry(case, "sam", [0.5, 0.6, 0.7], {"trace": [1.0, 1.0, 1.0]})
    found, other = table_of(tables.case_table([sgd, sam], sam))
    assert (found["diverged"], other["diverged"]) == ("1", "")
    assert found["Hessian trace"] == "4 (2 of 3)"
    assert found["top eigenvalue"] == "nan"
    assert found["test accuracy, %"] == shown([10.0, 60.0, 70.0], 2)


GRID = [(lr, knob) for lr in (0.01, 0.03, 0.1) for knob in (0.1, 0.2, 0.4)]


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ((0.03, 0.2), ""),
        ((0.01, 0.2), "lr"),
        ((0.1, 0.2), "lr"),
        ((0.03, 0.1), "weight decay"),
        ((0.03, 0.4), "weight decay"),
        ((0.1, 0.1), "lr, weight decay"),
    ],
)
def test_that_settings_at_an_end_of_the_grid_are_flagged(setting, text) -> None:
    case = made_case()
    entry = made_entry(case, "sgd", [0.5, 0.6], grid=GRID, chosen=GRID.index(setting))
    sam = made_entry(case, "sam", [0.5, 0.7], grid=GRID, chosen=4)
    found, reference = table_of(tables.case_table([entry, sam], sam))
    assert found["at the edge"] == text
    assert reference["at the edge"] == ""


def test_that_the_knob_at_an_end_is_flagged_by_its_own_name() -> None:
    sam = made_entry(made_case(), "sam", [0.5, 0.7], grid=GRID, chosen=GRID.index((0.03, 0.4)))
    (row,) = table_of(tables.case_table([sam], sam))
    assert (row["at the edge"], row["knob"], row["lr"]) == ("rho", "rho 0.4", "0.03")


def test_that_the_overview_has_every_method_at_the_epochs_of_each_case() -> None:
    first = made_up(made_case(("sgd", "sam"), "one", equal_gradients=True))
    second = made_up(made_case(("sam", "rsam"), "two"), seed=1)
    assert [e.epochs for e in first] == [4, 4, 8]
    first_of_all = [first[2], *first[:2]]  # more epochs: it does not stand for its method
    rows = {row["test accuracy, %"]: row for row in table_of(tables.overview([first_of_all, second]))}
    assert list(rows) == ["SGD", "SAM", "RSAM, spheres"]
    for label, one, two in (("SGD", first[0], None), ("SAM", first[1], second[0]), ("RSAM, spheres", None, second[1])):
        assert rows[label]["made up, one"] == ("" if one is None else shown(percent(one), 1))
        assert rows[label]["made up, two"] == ("" if two is None else shown(percent(two), 1))


def test_that_the_table_of_verdicts_shows_simultaneous_intervals() -> None:
    wide, narrow = compare([1.0, 2.0, 4.0], 2), compare([-1.0, -1.01, -1.02], 2)
    verdicts = [
        Verdict("C4", "holds", [("a", wide), ("b", narrow)]),
        Verdict("C6", "undecided", [("c", compare([2.0]))]),
    ]
    rows = table_of(tables.verdicts(verdicts))
    assert [(row["claim"], row["verdict"], row["measured"]) for row in rows] == [
        ("C4", "**holds**", "a"),
        ("C4", "**holds**", "b"),
        ("C6", "**undecided**", "c"),
    ]
    for row, values in ((rows[0], [1.0, 2.0, 4.0]), (rows[1], [-1.0, -1.01, -1.02])):
        test = scipy.stats.ttest_1samp(values, 0)
        low, high = test.confidence_interval(0.975)
        assert row["interval"] == f"{low:.2f} to {high:.2f}"
        assert row["mean"] == f"{np.mean(values):.2f}"
        assert row["p"] == tables.p_value(2 * test.pvalue)


def test_that_penalties_are_compared_with_sgd_seed_by_seed() -> None:
    entries = made_up(made_case(ASKED, equal_gradients=True))
    for entry in entries:  # a network that diverged has no curvature
        if entry.name == "rsam":
            entry.rows[1] = replace(entry.rows[1], measures={})
    rows = table_of(tables.penalties([entries]))
    shown_methods = ["gradient_norm", "hessian_trace", "sam", "rsam", "rsam_stiefel"]
    assert [row["method"] for row in rows] == [CONTESTANTS[name].label for name in shown_methods]
    sgd, sam = find(entries, "sgd"), find(entries, "sam")
    for row, name in zip(rows, shown_methods, strict=True):
        entry = find(entries, name)
        for label, measure in zip(("gradient norm", "Hessian trace"), MEASURES[:2], strict=True):
            ratios = [
                a.measures[measure] / b.measures[measure]
                for a, b in zip(entry.rows, sgd.rows, strict=True)
                if a.measures
            ]
            assert row[f"{label} / SGD's"] == f"{scipy.stats.gmean(ratios):.2f}"
        assert row["accuracy minus SGD"] == shown(percent(entry) - percent(sgd), 2)
        assert row["minus SAM"] == ("" if name == "sam" else shown(percent(entry) - percent(sam), 2))


def test_that_correlations_are_with_gap_and_accuracy_in_all_and_in_parts() -> None:
    methods = (*ASKED, "adamw", "riemannian_sgd", "rsam_pullback", "ambient_sam", "asam")
    case = made_case(methods)
    entries = made_up(case)
    rows = {row["rank correlation of"]: row for row in table_of(tables.correlations([entries]))}

    def reference(measure: str, target: Callable[[Row], float], manifolds: Sequence[str]) -> str:
        of_seeds = [
            scipy.stats.spearmanr(
                *zip(
                    *(
                        (e.rows[seed].measures[measure], target(e.rows[seed]))
                        for e in entries
                        if e.contestant.kernels in manifolds and e.name != "peer_sam"
                    ),
                    strict=True,
                )
            ).statistic
            for seed in range(SEEDS)
        ]
        return shown(of_seeds, 2)

    every = ("plain", "spheres", "stiefel")
    for label, measure in (("Hessian trace", "trace"), ("m-sharpness", "sharpness")):
        found = rows[f"{label}, gap"]
        assert found["made up, made"] == reference(measure, gap, every)
        of_accuracy = rows[f"{label}, test accuracy"]
        assert of_accuracy["made up, made"] == reference(measure, lambda r: r.scores["accuracy"], every)
        for manifold in ("plain", "spheres"):
            part = rows[f"{label}, gap, {manifold} only"]
            assert part["made up, made"] == reference(measure, gap, [manifold])
        assert f"{label}, gap, stiefel only" not in rows  # a single network has no correlation
    within = [
        scipy.stats.spearmanr([r.measures["trace"] for r in e.rows], [gap(r) for r in e.rows]).statistic
        for e in entries
        if e.name != "peer_sam"
    ]
    assert rows["Hessian trace, gap"]["within methods"].startswith(f"{np.mean(within):.2f} (p ")


def test_that_contestants_at_other_epochs_are_not_taken_for_those_of_the_case() -> None:
    case = made_case(("sgd", "sam"), equal_gradients=True)
    late, early = made_entry(case, case.contestants[-1], [0.5]), made_entry(case, "sgd", [0.6])
    assert find([late, early], "sgd") is early
    assert (late.contestant.method, late.epochs) == ("sgd", 8)
