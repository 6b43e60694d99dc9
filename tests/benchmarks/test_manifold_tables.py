"""That tables of comparisons on manifolds show the numbers of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import scipy.stats

from benchmarks.studies.comparison.cases import Score
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.manifold_tasks.answers import forest, improvement, sentences
from benchmarks.studies.manifold_tasks.tables import by_case, case_table, conclusions, overview
from tests.benchmarks.manifold_cases import CASES, CONTESTANTS, ERRORS, NAMES, ONE, entries_of, made

#: Methods that each line of conclusions compares, in order.
PAIRS = (
    ("rsam", "riemannian_sgd"),
    ("rsam_adam", "riemannian_adam"),
    ("rsam", "riemannian_sgd_twice"),
    ("rsam_adam", "riemannian_adam_twice"),
    ("rsam", "riemannian_sgd_alike"),
    ("rsam_adam", "riemannian_adam_alike"),
    ("rsam", "projected_sam"),
    ("rsam_adam", "projected_sam_adam"),
)


LABELS = {contestant.name: contestant.label for contestant in CONTESTANTS}


def rows_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def values(entry: Entry) -> np.ndarray:
    return np.array([entry.case.score.unit * row.scores[entry.case.score.name] for row in entry.rows])


def better(entries: Sequence[Entry], method: str, other: str) -> np.ndarray:
    """Return by how much a method is better than another, seed by seed."""
    of = {entry.name: entry for entry in entries}
    return (values(of[method]) - values(of[other])) * (-1 if entries[0].case.score.smaller else 1)


def ends(numbers: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of Student's interval, by scipy."""
    actual = scipy.stats.ttest_1samp(numbers, 0).confidence_interval(level)
    return actual.low, actual.high


def interval(numbers: np.ndarray) -> str:
    low, high = ends(numbers)
    return f"{numbers.mean():.2f} ± {(high - low) / 2:.2f}"


@pytest.mark.parametrize("case", [ONE, ERRORS], ids=lambda case: case.name)
def test_that_the_table_of_a_case_shows_scores_and_paired_differences(case) -> None:
    entries = entries_of(case)
    for row, entry in zip(rows_of(case_table(entries)), entries, strict=True):
        assert row[0] == entry.contestant.label
        assert row[1] == interval(values(entry))
        base = entry.contestant.base
        assert row[3] == (interval(better(entries, entry.name, base)) if base else "")
        # the geometric mean of 1, 4, 1; eigenvalues are negative and have none
        assert row[4:7] == ["2", f"{4 ** (1 / 3):.3g}", "nan"]


def test_that_traces_that_are_not_positive_are_counted() -> None:
    entries = entries_of()
    traces = zip(entries[0].rows, (-1.0, 2.0, 8.0), strict=True)
    rows = [replace(row, measures={**row.measures, "trace": trace}) for row, trace in traces]
    assert rows_of(case_table([replace(entries[0], rows=rows), *entries[1:]]))[0][5] == "4 (2 of 3)"


def test_that_choices_at_the_edge_of_their_grid_are_flagged() -> None:
    for row, entry in zip(rows_of(case_table(entries_of())), entries_of(), strict=True):
        # either of two rates is at an edge; 0.02 is in the middle; 0.5 is the middle momentum, but the smallest beta
        alone = "lr, beta 1" if entry.name.startswith("riemannian_adam") else "lr"
        ascent = entry.contestant.settings_of
        assert row[9] == (f"of {LABELS[ascent]}" if ascent else alone)


def test_that_conclusions_are_drawn_on_means_over_the_cases_of_a_group() -> None:
    one, other, errors = (entries_of(case) for case in CASES)
    rows = rows_of(conclusions([one, other, errors], 2))
    heads = "both (accuracy, %)", "errors (log₁₀ squared error)"
    assert [row[0] for row in rows] == [heads[0]] * 8 + [heads[1]] * 8
    for i, row in enumerate(rows):
        pair = PAIRS[i % 8]
        numbers = better(errors, *pair) if i >= 8 else (better(one, *pair) + better(other, *pair)) / 2
        assert row[1] == f"{LABELS[pair[0]]} − {LABELS[pair[1]]}"
        # the same question for two groups and two bases
        low, high = ends(numbers, 1 - 0.05 / 4)
        assert row[2:4] == [f"{numbers.mean():.2f}", f"{low:.2f} to {high:.2f}"]
        assert float(row[4]) == pytest.approx(min(1, 4 * scipy.stats.ttest_1samp(numbers, 0).pvalue), abs=6e-4)


def test_that_picture_and_sentences_say_what_the_conclusions_say() -> None:
    cases = [entries_of(case) for case in CASES]
    of = {entry.name: entry for entry in cases[2]}
    # far better than its base at equal epochs, on the group of one case alone
    rows = [replace(r, scores={"log_error": r.scores["log_error"] + 5 + 1e-3 * i}) for i, r in
            enumerate(of["riemannian_sgd"].rows)]  # fmt: skip
    cases[2] = [replace(e, rows=rows) if e.name == "riemannian_sgd" else e for e in cases[2]]
    table = rows_of(conclusions(cases, 2))
    groups = forest(cases, 2)
    assert [group.title for group in groups] == ["both (accuracy, %)", "errors (log₁₀ squared error)"]
    drawn = [line for group in groups for line in group.lines]
    for row, line in zip(table, drawn, strict=True):
        assert row[2:4] == [f"{line.interval.mean:.2f}", f"{line.interval.low:.2f} to {line.interval.high:.2f}"]
    assert [line.label for line in drawn[:3]] == ["equal epochs, SGD", "equal epochs, Adam", "equal gradients, SGD"]
    first, *others = sentences(cases, 2)
    assert f"better on *errors* over SGD ({table[8][2]}); undecided in 3 of 4 comparisons." in first
    assert len(others) == 3
    for sentence, i in zip(others, (2, 4, 6), strict=True):
        words = [row[-1] for row in (table[i], table[i + 1], table[i + 8], table[i + 9])]
        assert ("undecided." in sentence) == (set(words) == {"undecided"})


@pytest.mark.parametrize("case", [ONE, ERRORS], ids=lambda case: case.name)
@pytest.mark.parametrize(("shift", "outcome"), [(0.3, "better"), (0.0, "undecided"), (-0.3, "worse")])
def test_that_it_is_better_or_worse_where_the_interval_is_off_zero(case, shift, outcome) -> None:
    entries = entries_of(case)
    of = {entry.name: entry for entry in entries}
    towards = -shift if case.score.smaller else shift
    moved = [
        replace(row, scores={case.score.name: row.scores[case.score.name] + towards + 1e-3 * (i - 1)})
        for i, row in enumerate(of["riemannian_sgd"].rows)
    ]
    changed = [replace(of["rsam"], rows=moved) if entry.name == "rsam" else entry for entry in entries]
    assert rows_of(conclusions([changed], 1))[0][-1] == outcome


def test_that_each_case_is_compared_with_an_interval_of_its_own() -> None:
    cases = [entries_of(case) for case in CASES]
    for row, entries in zip(rows_of(by_case(cases))[::3], cases, strict=True):
        assert row[0] == entries[0].case.label
        assert row[2:] == [interval(better(entries, *pair)) for pair in PAIRS]


def test_that_other_scores_are_compared_too_where_less_may_be_better() -> None:
    names = ("accuracy", "long_accuracy", "mean_rank")
    entries = [
        replace(entry, rows=[replace(row, scores=dict.fromkeys(names, row.scores["accuracy"])) for row in entry.rows])
        for entry in entries_of()
    ]
    rows = rows_of(by_case([entries]))[:3]
    assert [row[1] for row in rows] == ["accuracy, %", "twice as long, %", "mean rank"]
    numbers = better(entries, *PAIRS[0])
    assert [row[2] for row in rows] == [interval(numbers), interval(numbers), interval(-numbers / 100)]
    # tables show points of accuracy
    rows = rows_of(overview([entries]))[:3]
    assert [row[1] for row in rows] == ["accuracy, %", "twice as long, %", "mean rank"]
    assert rows[1][2:] == rows[0][2:]
    assert [float(cell.split()[0]) for cell in rows[2][2:]] == [
        pytest.approx(fmean(values(entry)) / 100, abs=0.0051) for entry in entries
    ]


def test_that_the_family_of_a_question_is_that_of_all_groups() -> None:
    entries = entries_of()
    numbers = better(entries, *PAIRS[0])
    low, high = ends(numbers, 1 - 0.05 / 6)
    assert rows_of(conclusions([entries], 3))[0][3] == f"{low:.2f} to {high:.2f}"


def test_that_trials_that_diverged_are_counted_and_score_as_if_nothing_was_learnt() -> None:
    case = replace(ONE, score=Score(worst=0.1))
    entries = [replace(entry, case=case) for entry in entries_of()]
    first = entries[0]
    broken = replace(first, rows=[made(first.rows[0].run, diverged=True), *first.rows[1:]])
    changed = [broken, *entries[1:]]
    table = rows_of(case_table(changed))
    assert [row[-1] for row in table] == ["1", *[""] * 9]
    scores = np.array([10.0, *values(first)[1:]])
    assert table[0][1] == interval(scores)
    of = {entry.name: i for i, entry in enumerate(entries)}
    numbers = values(entries[of["rsam"]]) - scores
    assert table[of["rsam"]][3] == interval(numbers)
    assert rows_of(conclusions([changed], 1))[0][2] == f"{numbers.mean():.2f}"
    assert rows_of(by_case([changed]))[0][2] == interval(numbers)
    # other scores have no such unit
    longer = [
        replace(e, rows=[replace(r, scores={n: 0.5 for n in (*r.scores, "long_accuracy") if r.scores}) for r in e.rows])
        for e in changed
    ]
    assert rows_of(case_table(longer))[0][2].endswith("(2 of 3)")


def test_that_the_overview_has_every_method_on_every_case() -> None:
    cases = [entries_of(case) for case in CASES]
    for row, entries in zip(rows_of(overview(cases))[::3], cases, strict=True):
        assert row[0] == entries[0].case.label
        assert [float(cell.split()[0]) for cell in row[2:]] == [
            pytest.approx(fmean(values(entry)), abs=0.051) for entry in entries
        ]


def test_that_curvature_is_shown_beside_scores_and_compared_by_how_often_it_halved() -> None:
    factors = dict(zip(NAMES, range(1, 11), strict=True))
    entries = [
        replace(e, rows=[replace(r, measures={**r.measures, "trace": (i + 2) ** factors[e.name]}) for i, r in
                         enumerate(e.rows)])
        for e in entries_of()
    ]  # fmt: skip
    assert [row[1] for row in rows_of(overview([entries]))[1:]] == ["Hessian trace", "top eigenvalue"]
    # geometric means of 2, 3 and 4 to a power; eigenvalues are negative
    assert rows_of(overview([entries]))[1][2:] == [f"{24 ** (f / 3):.3g}" for f in factors.values()]
    assert rows_of(overview([entries]))[2][2:] == ["nan"] * 10
    _, trace, eigenvalue = rows_of(by_case([entries]))
    halved = [(factors[base] - factors[method]) * np.log2([2, 3, 4]) for method, base in PAIRS]
    assert trace[1:] == ["Hessian trace, log₂", *map(interval, halved)]
    assert eigenvalue[2:] == ["not positive"] * 8


def test_that_cases_without_curvature_show_none() -> None:
    entries = [replace(e, rows=[replace(r, measures={}) for r in e.rows]) for e in entries_of()]
    assert len(rows_of(overview([entries]))) == len(rows_of(by_case([entries]))) == 1


def test_that_one_seed_shows_differences_without_intervals() -> None:
    entries = [replace(entry, rows=entry.rows[:1]) for entry in entries_of()]
    of = {entry.name: entry for entry in entries}
    difference = f"{improvement(of['rsam'], of['riemannian_sgd'])[0]:.2f}"
    assert rows_of(conclusions([entries], 1))[0][2:] == [difference, "", "", "undecided"]
    assert rows_of(by_case([entries]))[0][2] == difference
    assert "nan" not in "".join(row[3] for row in rows_of(case_table(entries)))
