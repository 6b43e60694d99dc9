"""That the verdicts of the fair comparison follow their rules, on made numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from benchmarks.report.intervals import Interval
from benchmarks.run import Knob, Run
from benchmarks.studies.comparison.cases import Case, Contestant
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.comparison.sampling import Range, Sample
from benchmarks.studies.comparison.tuning import Tuned
from benchmarks.studies.fair import tables
from benchmarks.studies.fair.comparisons import answers, sentences
from benchmarks.studies.fair.contestants import CONTESTANTS, PENALTY, VARIANTS
from benchmarks.studies.fair.differences import (
    Difference,
    best_on_validation,
    choice_error,
    difference,
    lead,
)
from benchmarks.studies.fair.figures import claim_groups, groups
from benchmarks.studies.fair.rules import RULES, deciding, judge
from tests.benchmarks.comparisons import table_of
from tests.benchmarks.entries import made_row
from tests.benchmarks.fakes import Nothing

ABOVE, BELOW, WIDE = Interval(0.5, 0.4), Interval(-0.3, 0.4), Interval(0.3, 0.5)


@pytest.mark.parametrize(
    ("pooled", "means", "outcome"),
    [
        (ABOVE, (0.5, 0.5, 0.5, 0.5), "holds"),
        (ABOVE, (1.0, 1.0, 0.3, -0.3), "holds"),
        (ABOVE, (1.0, 1.0, 0.31, -0.31), "undecided"),  # a case loses too much
        (ABOVE, (1.2, 1.2, -0.2, -0.2), "undecided"),  # two of four gain
        (Interval(0.5, 0.51), (0.5, 0.5, 0.5, 0.5), "undecided"),
        (BELOW, (-0.3, -0.3, -0.3, -0.3), "does not hold"),
        (Interval(0.0, 0.19), (0.5, 0.5, 0.5, -1.5), "does not hold"),
        (Interval(0.1, 0.09), (0.1, 0.1, 0.1, 0.1), "holds"),  # a small gain is a gain
        (Interval(0.1, 0.09), (0.4, 0.4, -0.2, -0.2), "does not hold"),
        (WIDE, (0.3, 0.3, 0.3, 0.3), "undecided"),
        (Interval(1.0, math.nan), (1.0, 1.0, 1.0, 1.0), "undecided"),  # of one seed nothing is known
    ],
)
def test_that_verdicts_follow_the_rule_at_its_edges(pooled, means, outcome) -> None:
    assert judge(pooled, means) == outcome


@pytest.mark.parametrize("pooled", [ABOVE, BELOW, WIDE])
def test_that_nothing_is_decided_while_a_case_is_missing(pooled) -> None:
    assert judge(pooled, (pooled.mean,) * 3, missing=1) == "undecided"
    assert "While one of the four cases is missing nothing is decided" in " ".join(RULES.split())
    # of four cases three are there, in all of which RSAM gains two points
    found = answers(everyone(rsam=2.0)[:3], missing=1)
    assert {answer.judged.outcome for answer in found} == {"undecided"}
    c5, c6 = sentences(found)
    assert c5.startswith("**C5 undecided:** ") and c6.startswith("**C6 undecided:** ")
    assert f"in points over 3 of 4 cases: RSAM, spheres {found[0].judged.pooled:.2f}; " in c6
    assert not any(answer.deciding for answer in found)
    assert {line.verdict for group in claim_groups(found) for line in group.lines} == {"undecided"}


def test_that_the_text_of_the_rules_names_their_numbers() -> None:
    text = " ".join(RULES.split())
    assert "none is below -0.3." in text and "pooled upper end is below 0.2." in text
    assert "at least three of four cases have a positive mean" in text
    assert f"the {['', 'one', 'two', 'three'][len(VARIANTS)]} variants" in text


@pytest.mark.parametrize("comparisons", [1, 3])
@pytest.mark.parametrize(("shift", "means"), [(0.15, (0.1, 0.2, 0.1, 0.2)), (-0.1, (-0.1,) * 4), (0.05, (0.05,) * 4)])
def test_that_the_number_that_decides_is_the_first_whose_interval_does(comparisons, shift, means) -> None:
    values = np.random.default_rng(0).normal(size=12)
    values = shift + 0.4 * (values - values.mean()) / values.std(ddof=1)
    count = deciding(list(values), means, comparisons)
    assert count is not None

    def outcome(n: int) -> str:
        low, high = scipy.stats.t.interval(1 - 0.05 / comparisons, n - 1, loc=shift, scale=0.4 / math.sqrt(n))
        return judge(Interval(shift, (high - low) / 2), means)

    assert outcome(count) != "undecided" and outcome(count - 1) == "undecided"


def test_that_no_number_decides_a_large_gain_where_cases_disagree() -> None:
    assert deciding([0.9, 1.1, 1.0], (4.0, 1.0, -0.5, -0.5), 1) is None
    assert deciding([1.0], (1.0,), 1) is None  # of one value the deviation is not known


# ---- differences

RUN = Run(Nothing(), "", 0, 0.0, 2)  # type: ignore[arg-type]
SAMPLE = Sample.of(Range(Knob.LR, 0.01, 1.0), Range(Knob.RHO, 0.0125, 0.8, natural=True), number=4)


def made(accuracies: Mapping[str, Sequence[Sequence[float]]], label: str = "one") -> list[Entry]:
    """Make the entries of a case from accuracies in per cent, per setting and seed, best setting first."""
    contestants = {name: Contestant(name, CONTESTANTS[name].label, "sam", SAMPLE) for name in accuracies}
    case = Case(label, label, RUN, tuple(contestants.values()))
    entries = []
    for name, of_settings in accuracies.items():
        settings = case.settings(contestants[name])
        scores = {setting: 0.9 - 0.01 * i for i, setting in enumerate(settings)}
        tuned = Tuned(settings[0], 0.9, scores, tuple(settings), {s: [v, v] for s, v in scores.items()})
        for rank, values in enumerate(of_settings):
            rows = [made_row(replace(settings[rank], seed=i), value / 100) for i, value in enumerate(values)]
            entries.append(Entry(case, contestants[name], tuned, rows, rank))
    return entries


def test_that_differences_are_means_over_settings_paired_by_seed() -> None:
    cases = [
        made({"rsam": [[80, 82], [78, 80], [76, 81]], "sam": [[79, 80], [78, 79], [77, 78]]}),
        made({"rsam": [[60, 60], [60, 60], [63, 57]], "sam": [[61, 60], [61, 60], [61, 60]]}, "two"),
    ]
    found = difference(cases, "rsam", "sam", 3)
    # means over settings: 78 and 81 against 78 and 79; 61 and 59 against 61 and 60
    assert found.by_case == {"one": pytest.approx([0, 2]), "two": pytest.approx([0, -1])}
    assert found.of_seeds == pytest.approx([0, 0.5])
    assert found.means == pytest.approx([1, -0.5])
    for interval, values in ((found.pooled, [0, 0.5]), (found.over_cases, [1, -0.5])):
        reference = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / 3)
        assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high))
    assert difference(cases, "rsam", "sam", best=True).by_case == {
        "one": pytest.approx([1, 2]),
        "two": pytest.approx([-1, 0]),
    }


def test_that_the_variant_to_recommend_is_chosen_on_validation_data() -> None:
    # tests speak for the first, validation of the second setting for the other
    case = made({"rsam": [[90], [90]], "rsam_angle": [[10], [10]]})
    settings = case[2].tuned.kept
    better = replace(case[2].tuned, scores=case[2].tuned.scores | {settings[1]: 0.895})
    chosen = [*case[:2], *(replace(entry, tuned=better) for entry in case[2:])]
    assert best_on_validation([chosen], ("rsam", "rsam_angle")) == "rsam_angle"
    assert best_on_validation([case, chosen, made({"rsam": [[1]], "rsam_angle": [[2]]})], ("rsam",)) == "rsam"


def test_that_the_standard_error_of_a_choice_between_two_is_that_of_their_paired_difference() -> None:
    (entry,) = made({"sam": [[80]]})
    a, b, *_ = entry.tuned.kept
    of_two = replace(entry, tuned=replace(entry.tuned, kept=(a, b), by_seed={a: [0.60, 0.62], b: [0.61, 0.59]}))
    # differences of -1 and 3 points: standard deviation 2.83, over two seeds 2
    assert choice_error(of_two) == pytest.approx(2)
    # what all settings share in a seed says nothing of their order
    shared = {a: [0.60, 0.72], b: [0.61, 0.69]}
    assert choice_error(replace(of_two, tuned=replace(of_two.tuned, by_seed=shared))) == pytest.approx(2)
    lost = {a: [0.60, -math.inf], b: [0.61, 0.69]}
    once = {a: [0.60], b: [0.61]}
    for by_seed in (lost, once):
        assert math.isnan(choice_error(replace(of_two, tuned=replace(of_two.tuned, by_seed=by_seed))))
    assert math.isnan(choice_error(replace(of_two, tuned=replace(of_two.tuned, kept=(a,)))))


def test_that_the_standard_error_of_a_choice_is_that_of_simulated_choices() -> None:
    rng = np.random.default_rng(1)
    (entry,) = made({"sam": [[80]]})
    errors = []
    for _ in range(400):
        scores = 0.01 * (rng.normal(size=(4, 1)) + rng.normal(size=(1, 3)) + 0.5 * rng.normal(size=(4, 3)))
        by_seed = dict(zip(entry.tuned.kept, scores.tolist(), strict=True))
        errors.append(choice_error(replace(entry, tuned=replace(entry.tuned, by_seed=by_seed))))
    # two means over three seeds with a deviation of half a point each; 400 samples of 6 degrees of freedom leave 1.5 %
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(0.5 * math.sqrt(2 / 3), rel=0.05)


def test_that_the_lead_is_that_of_the_best_over_the_next() -> None:
    (entry,) = made({"sam": [[80]]})
    assert lead(entry) == pytest.approx(1)
    assert math.isnan(lead(replace(entry, tuned=replace(entry.tuned, kept=entry.tuned.kept[:1]))))


# ---- answers

SEEDS = np.random.default_rng(5).normal(scale=0.3, size=12)


def everyone(**gains: float) -> list[list[Entry]]:
    """Make four cases of all contestants at three settings, with these gains over SAM in points."""
    cases = []
    for i in range(4):
        of_names = {
            name: [
                list(70 + 3 * i + gains.get(name, 0.0) + SEEDS * (name != "sam") * (1 - setting / 3))
                for setting in range(3)
            ]
            for name in CONTESTANTS
        }
        cases.append(made(of_names, f"case {i}"))
    return cases


def test_that_each_variant_and_the_penalty_get_a_line_of_their_own() -> None:
    found = answers(everyone(rsam=2.0, rsam_stiefel=-2.0, hessian_trace=-1.0, asam=1.0))
    assert [(answer.claim, answer.judged.outcome) for answer in found] == [
        ("C6", "holds"),
        ("C6", "does not hold"),
        ("C6", found[2].judged.outcome),
        ("C5", "holds"),
    ]
    assert [answer.judged.comparisons for answer in found] == [3, 3, 3, 1]
    spheres = found[0]
    # ASAM and RSAM share the deviations of seeds here
    assert spheres.beside["ASAM"].of_seeds == pytest.approx([1.0] * 12)
    assert spheres.label == f"{CONTESTANTS['rsam'].label} − SAM"
    assert found[3].label == f"SAM − {CONTESTANTS[PENALTY].label}"


def test_that_a_claim_is_one_line_which_names_the_verdict_of_each_variant_if_they_differ() -> None:
    found = answers(everyone(rsam=2.0, rsam_stiefel=-2.0, hessian_trace=-1.0))
    c5, c6 = sentences(found)
    assert c5.startswith("**C5 holds:** ") and c5.endswith(f"over 4 cases: {found[3].judged.pooled:.2f}.")
    spheres, stiefel, angle = (f"{a.judged.pooled:.2f} ({a.judged.outcome})" for a in found[:3])
    assert c6.startswith("**C6:** ")
    assert c6.endswith(f"RSAM, spheres {spheres}; RSAM, Stiefel {stiefel}; {CONTESTANTS['rsam_angle'].label} {angle}.")


def test_that_undecided_lines_say_what_would_decide() -> None:
    undecided = next(a for a in answers(everyone(rsam=0.12)) if a.label.startswith("RSAM, spheres"))
    noisy = replace(
        undecided,
        judged=Difference({"a": [0.5, -0.3, 0.4, 0.2], "b": [0.1, 0.4, -0.2, -0.1]}, 3),
    )
    assert noisy.judged.outcome == "undecided"
    seeds = deciding(noisy.judged.of_seeds, noisy.judged.means, 3)
    cases = deciding(noisy.judged.means, noisy.judged.means, 3)
    assert noisy.deciding == f"{seeds} seeds or {cases} cases"
    disagree = replace(noisy, judged=Difference({"a": [3.0, 3.1], "b": [-1.0, -0.8]}, 3))
    assert disagree.deciding == "no number"


def test_that_the_picture_and_the_tables_show_the_same_numbers() -> None:
    found = answers(everyone(rsam=1.0))
    picture = groups(found)
    assert [group.verdict for group in picture] == [answer.judged.outcome for answer in found]
    assert [line.label for line in picture[0].lines] == [
        *(f"case {i}" for i in range(4)),
        "pooled over cases",
        "interval over cases",
        "pooled, − ASAM instead",
        "pooled, − AdamW instead",
        "pooled, − RiemannianSGD, spheres instead",
    ]
    assert picture[0].lines[4].interval == found[0].judged.pooled
    shown = table_of(tables.verdicts(found))
    assert [row["pooled"] for row in shown] == [f"{answer.judged.pooled:.2f}" for answer in found]
    by_label = {row["difference, points"]: row for row in table_of(tables.differences(found))}
    assert by_label["RSAM, spheres − ASAM"]["pooled"] == f"{found[0].beside['ASAM'].pooled:.2f}"
    assert by_label["RSAM, spheres − SAM, at the best"]["pooled"] == f"{found[0].best.pooled:.2f}"
    assert len(by_label) == 3 * 5 + 2


def test_that_tables_of_settings_name_values_and_ends() -> None:
    case = made({"sam": [[80, 81], [79, 78]]})
    rows = table_of(tables.settings(case))
    settings = case[0].tuned.best(2)
    assert [row["lr"] for row in rows] == [f"{s.lr:g}" for s in settings]
    assert [row["rho"] for row in rows] == [f"{s.rho:g}" for s in settings]
    assert [row["validation, %"] for row in rows] == ["90.0", "89.0"]
    assert [row["test, %"].split()[0] for row in rows] == ["80.5", "78.5"]
    assert {row["weight decay"] for row in rows} == {""}
    high = replace(settings[0], lr=0.99)
    entry = replace(case[0], tuned=Tuned(high, 0.9, {high: 0.9}, (high,)))
    assert table_of(tables.settings([entry]))[0]["at an end"] == "lr high"
    widened = replace(entry, contestant=replace(entry.contestant, grid=SAMPLE.widened(Knob.LR, upper=True)))
    rows = table_of(tables.widened([[entry]])) + table_of(tables.widened([[widened]]))
    assert [(r["knob"], r["at first"], r["widened"], r["best still at an end"]) for r in rows] == [
        ("lr", "0.01 to 1", "0.01 to 1", "yes"),
        ("lr", "0.01 to 1", "0.01 to 3.16", ""),
    ]
