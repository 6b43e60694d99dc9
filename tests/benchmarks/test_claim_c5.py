"""That C5 follows from the numbers as its rule says, with scipy's intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from benchmarks.studies.comparison.contest import Entry, find
from benchmarks.studies.images.claims import CURVATURES, PENALTIES, c5
from tests.benchmarks.entries import made_case, made_entry
from tests.benchmarks.verdicts import HALVED, NEARLY, SEEDS, SLACK, assert_is_test_of, generator, halves, with_interval


def cases_of_c5(
    logs: Mapping[str, np.ndarray], points: Mapping[str, np.ndarray], diverged: Sequence[int] = ()
) -> list[list[Entry]]:
    """Make two cases from their means per penalty: log2 of the penalised curvature over SGD's, accuracy minus SAM's.

    Each penalty raises the curvature that it does not penalise, and SGD is more accurate than SAM.
    """
    cases = []
    for i in range(2):
        case = made_case(("sam", "hessian_trace", "sgd", "gradient_norm"), name=f"case{i}")
        base = 80 + generator(7 + i).normal(scale=2, size=SEEDS)
        plain = {name: np.exp(generator(17 + i + 2 * j).normal(size=SEEDS)) for j, name in enumerate(CURVATURES)}
        entries = {
            "sam": made_entry(case, "sam", base / 100, {name: values / 9 for name, values in plain.items()}),
            "sgd": made_entry(case, "sgd", (base + 5) / 100, plain),
        }
        for penalty, measure in PENALTIES.items():
            curvature = {name: 8 * values for name, values in plain.items()}
            curvature[measure] = plain[measure] * 2 ** halves(logs[penalty])[i]
            accuracies = (base + halves(points[penalty])[i]) / 100
            entries[penalty] = made_entry(case, penalty, accuracies, curvature, diverged=diverged)
        cases.append([entries[name] for name in (c.name for c in case.contestants)])
    return cases


LOWER, WORSE = (HALVED - 1, HALVED - SLACK), (-1.0, -SLACK)
NOT_LOWER, NOT_WORSE = (HALVED + SLACK, HALVED + 1), (NEARLY + SLACK, NEARLY + 3)
OPEN_LOWER, OPEN_WORSE = (HALVED - 1, HALVED + SLACK), (NEARLY - SLACK, SLACK)


@pytest.mark.parametrize(
    ("gradient", "trace", "outcome"),
    [
        ((LOWER, WORSE), (LOWER, WORSE), "holds"),
        ((OPEN_LOWER, WORSE), (LOWER, WORSE), "undecided"),
        ((LOWER, OPEN_WORSE), (LOWER, WORSE), "undecided"),
        ((LOWER, WORSE), (OPEN_LOWER, WORSE), "undecided"),
        ((LOWER, WORSE), (LOWER, OPEN_WORSE), "undecided"),
        ((NOT_LOWER, WORSE), (LOWER, WORSE), "does not hold"),
        ((LOWER, NOT_WORSE), (LOWER, WORSE), "does not hold"),
        ((LOWER, WORSE), (NOT_LOWER, WORSE), "does not hold"),
        ((LOWER, WORSE), (LOWER, NOT_WORSE), "does not hold"),
        (((HALVED - SLACK, HALVED + 1), WORSE), (LOWER, WORSE), "undecided"),
        ((LOWER, (NEARLY - SLACK, NEARLY + 3)), (LOWER, WORSE), "undecided"),
        (((3.0, 4.0), (1.0, 2.0)), ((3.0, 4.0), (1.0, 2.0)), "does not hold"),
    ],
)
def test_that_c5_follows_its_rule_at_its_edges(gradient, trace, outcome) -> None:
    pairs = {"gradient_norm": gradient, "hessian_trace": trace}
    logs = {name: with_interval(*low, 4, seed=i) for i, (name, (low, _)) in enumerate(pairs.items())}
    points = {name: with_interval(*bad, 4, seed=5 + i) for i, (name, (_, bad)) in enumerate(pairs.items())}
    verdict = c5(cases_of_c5(logs, points))
    assert (verdict.claim, verdict.outcome) == ("C5", outcome)


def some_of_c5(**options: Sequence[int]) -> list[list[Entry]]:
    logs = {name: with_interval(-3.0, -0.5, 4, seed=i) for i, name in enumerate(PENALTIES)}
    points = {name: with_interval(-0.8, 0.1, 4, seed=5 + i) for i, name in enumerate(PENALTIES)}
    return cases_of_c5(logs, points, **options)


def test_that_c5_rests_on_paired_tests_of_the_mean_over_cases() -> None:
    cases = some_of_c5()
    evidence = c5(cases).evidence
    labels = ["gradient norm", "gradient norm", "Hessian trace", "Hessian trace"]
    assert all(label in what for (what, _), label in zip(evidence, labels, strict=True))

    def values(name: str, of) -> np.ndarray:
        return np.mean([[of(row) for row in find(case, name).rows] for case in cases], axis=0)

    tests = []
    for penalty, measure in (("gradient_norm", "gradient_norm"), ("hessian_trace", "trace")):
        # the mean of logarithms of ratios is the difference of the means of logarithms
        tests.append([values(name, lambda row, m=measure: np.log2(row.measures[m])) for name in (penalty, "sgd")])
        tests.append([values(name, lambda row: 100 * row.scores["accuracy"]) for name in (penalty, "sam")])
    for (_, comparison), (one, other) in zip(evidence, tests, strict=True):
        assert_is_test_of(comparison, one - other, 4)
        assert comparison.p == pytest.approx(min(1, 4 * scipy.stats.ttest_rel(one, other).pvalue), rel=1e-6)


@pytest.mark.parametrize(("moved", "changed"), [("sgd", [0, 2]), ("sam", [1, 3])])
def test_that_c5_pairs_seeds(moved, changed) -> None:
    cases = some_of_c5()
    shuffled = [[replace(e, rows=e.rows[1:] + e.rows[:1]) if e.name == moved else e for e in case] for case in cases]
    for i, ((_, paired), (_, other)) in enumerate(zip(c5(cases).evidence, c5(shuffled).evidence, strict=True)):
        assert other.interval.mean == pytest.approx(paired.interval.mean)
        assert (abs(other.p - paired.p) > 1e-6) == (i in changed)


def test_that_c5_leaves_seeds_without_curvature_out_of_it_and_keeps_their_accuracy() -> None:
    cases = some_of_c5(diverged=[2])
    actual, reference = c5(cases), c5(some_of_c5())
    for i in (1, 3):
        assert actual.evidence[i] == reference.evidence[i]
    for i, (penalty, measure) in zip((0, 2), PENALTIES.items(), strict=True):
        pairs = [(find(case, penalty).rows, find(case, "sgd").rows) for case in cases]
        others = [seed for seed in range(SEEDS) if seed != 2]
        logs = [np.mean([np.log2(a[s].measures[measure] / b[s].measures[measure]) for a, b in pairs]) for s in others]
        assert_is_test_of(actual.evidence[i][1], logs, 4)


def test_that_c5_takes_a_trace_below_zero_for_its_standard_error() -> None:
    case = made_case(("sgd", "sam", "gradient_norm", "hessian_trace"))
    accuracies = [0.5, 0.6, 0.7]
    plain = {"gradient_norm": [1.0] * 3, "trace": [8.0, 8.0, -1.0], "trace_error": [1.0, 1.0, 16.0]}
    penalised = {"gradient_norm": [1.0] * 3, "trace": [-3.0, 2.0, 4.0], "trace_error": [0.5, 0.5, 0.5]}
    entries = [
        made_entry(case, name, accuracies, penalised if name == "hessian_trace" else plain)
        for name in (c.name for c in case.contestants)
    ]
    _, comparison = c5([entries]).evidence[2]
    assert_is_test_of(comparison, [math.log2(0.5 / 8), math.log2(2 / 8), math.log2(4 / 16)], 4)
