"""That verdicts follow from the numbers as their rules say, and the numbers are those of scipy.

Data are made such that an interval ends just where it should: accuracies as :func:`with_interval` places them, rank
correlations as orders of five networks, whose coefficients are the multiples of 0.1.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from benchmarks.report.intervals import Comparison
from benchmarks.studies.optimizers import claims
from benchmarks.studies.optimizers.cases import Case
from benchmarks.studies.optimizers.claims import (
    CURVATURES,
    PENALTIES,
    RULES,
    accuracy,
    c4,
    c5,
    c6,
    differences,
    find,
    measured,
    positive,
    rank_correlation,
    within_methods,
)
from benchmarks.studies.optimizers.protocol import Entry
from tests.benchmarks.entries import made_case, made_entry, made_row

SEEDS = 10
#: Five networks of a case, none of them the peer's.
FIVE = ("sgd", "adamw", "sam", "asam", "rsam")
SLACK = 0.01


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def text_of(claim: str) -> str:
    return " ".join(RULES[claim].split())


def number(claim: str, pattern: str) -> float:
    """A threshold as the text of a rule has it."""
    (found,) = set(re.findall(pattern, text_of(claim)))
    return float(found)


def with_interval(low: float, high: float, comparisons: int, seed: int = 0) -> np.ndarray:
    """Values, one a seed, whose Bonferroni interval is this one, by scipy."""
    values = generator(seed).normal(size=SEEDS)
    reference = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / comparisons)
    return (low + high) / 2 + (values - values.mean()) * (high - low) / (reference.high - reference.low)


def assert_is_test_of(comparison: Comparison, values: Sequence[float], comparisons: int) -> None:
    """That a comparison is scipy's test of values against 0, after Bonferroni."""
    test = scipy.stats.ttest_1samp(values, 0)
    for interval, level in ((comparison.interval, 0.95), (comparison.simultaneous, 1 - 0.05 / comparisons)):
        reference = test.confidence_interval(level)
        # accuracies go to fractions and back to points, which costs a few units in the 16th digit of 100
        assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), rel=1e-9, abs=1e-9)
        assert interval.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert comparison.p == pytest.approx(min(1, comparisons * test.pvalue), rel=1e-6)


def halves(values: np.ndarray, size: float = 3.0) -> list[np.ndarray]:
    """Two cases' values with this mean, each of which is far noisier than their mean."""
    noise = size * generator(99).normal(size=len(values))
    return [values + noise, values - noise]


# ---- C6


def cases_of_c6(
    spheres: np.ndarray, stiefel: np.ndarray, sam: float = 80.0, diverged: Sequence[int] = ()
) -> list[list[Entry]]:
    """Two cases whose mean differences to SAM are these; SAM itself varies by seed and case."""
    found = []
    for i, (on_spheres, on_stiefel) in enumerate(zip(halves(spheres), halves(stiefel), strict=True)):
        case = made_case(("rsam", "sam", "rsam_stiefel", "peer_sam"), name=f"case{i}")
        base = sam + generator(7 + i).normal(scale=2, size=SEEDS)
        found.append(
            [
                made_entry(case, "rsam", (base + on_spheres) / 100, diverged=diverged),
                made_entry(case, "sam", base / 100),
                made_entry(case, "rsam_stiefel", (base + on_stiefel) / 100),
                made_entry(case, "peer_sam", (base + 9) / 100),
            ]
        )
    return found


UNDECIDED = (-2.0, 2.0)
A_LITTLE = number("C6", r"if both are below ([\d.]+) points")


@pytest.mark.parametrize(
    ("spheres", "stiefel", "outcome"),
    [
        ((SLACK, 1.0), UNDECIDED, "holds"),
        (UNDECIDED, (SLACK, 1.0), "holds"),
        ((SLACK, 1.0), (-5.0, -4.0), "holds"),
        ((-SLACK, 1.0), (-SLACK, 1.0), "undecided"),
        ((-1.0, A_LITTLE - SLACK), (-1.0, A_LITTLE - SLACK), "does not hold"),
        ((-9.0, -8.0), (-9.0, -8.0), "does not hold"),
        ((-1.0, A_LITTLE + SLACK), (-1.0, A_LITTLE - SLACK), "undecided"),
        ((-1.0, A_LITTLE - SLACK), (-1.0, A_LITTLE + SLACK), "undecided"),
        (UNDECIDED, UNDECIDED, "undecided"),
    ],
)
def test_that_c6_follows_its_rule_at_its_edges(spheres, stiefel, outcome) -> None:
    verdict = c6(cases_of_c6(with_interval(*spheres, 2), with_interval(*stiefel, 2, seed=1)))
    assert (verdict.claim, verdict.outcome) == ("C6", outcome)


def test_that_c6_rests_on_paired_tests_of_the_mean_over_cases() -> None:
    cases = cases_of_c6(with_interval(-0.1, 0.5, 2), with_interval(-0.5, 0.2, 2, seed=1))
    evidence = c6(cases).evidence
    assert [("spheres" in what, "Stiefel" in what) for what, _ in evidence] == [(True, False), (False, True)]
    for (_, comparison), method in zip(evidence, ("rsam", "rsam_stiefel"), strict=True):
        mean = {
            name: np.mean([[100 * r.final_heldout_accuracy for r in find(case, name).rows] for case in cases], axis=0)
            for name in (method, "sam")
        }
        assert_is_test_of(comparison, mean[method] - mean["sam"], 2)
        test = scipy.stats.ttest_rel(mean[method], mean["sam"])
        interval = test.confidence_interval(0.975)
        assert comparison.p == pytest.approx(min(1, 2 * test.pvalue), rel=1e-6)
        assert (comparison.simultaneous.low, comparison.simultaneous.high) == pytest.approx(
            (interval.low, interval.high), abs=1e-9
        )


def test_that_c6_pairs_seeds() -> None:
    cases = cases_of_c6(with_interval(0.1, 0.3, 2), with_interval(0.1, 0.3, 2, seed=1))
    shuffled = [[replace(e, rows=e.rows[1:] + e.rows[:1]) if i == 1 else e for i, e in enumerate(c)] for c in cases]
    for (_, paired), (_, unpaired) in zip(c6(cases).evidence, c6(shuffled).evidence, strict=True):
        assert unpaired.interval.mean == pytest.approx(paired.interval.mean)
        # SAM varies by points from seed to seed, the differences by a tenth of one
        assert unpaired.interval.half_width > 5 * paired.interval.half_width
        assert unpaired.p > paired.p


def test_that_c6_looks_at_the_epochs_of_the_case_only() -> None:
    cases = cases_of_c6(with_interval(0.1, 0.3, 2), with_interval(0.1, 0.3, 2, seed=1))
    others = [made_entry(case[0].contestant.case, "rsam", [0.1] * SEEDS, epochs=3) for case in cases]
    again = [[other, *case] for case, other in zip(cases, others, strict=True)]
    assert c6(again) == c6(cases)


def test_that_c6_counts_networks_that_diverged_as_they_are() -> None:
    arguments = with_interval(0.1, 0.3, 2), with_interval(0.1, 0.3, 2, seed=1)
    assert c6(cases_of_c6(*arguments, diverged=[3])) == c6(cases_of_c6(*arguments))


# ---- C5


def cases_of_c5(
    logs: Mapping[str, np.ndarray], points: Mapping[str, np.ndarray], diverged: Sequence[int] = ()
) -> list[list[Entry]]:
    """Two cases: by penalty, log2 of what it penalises over SGD's, and accuracy minus SAM's, means over the cases.

    What a penalty does not penalise it raises, and SGD is more accurate than SAM.
    """
    found = []
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
        found.append([entries[name] for name in case.methods])
    return found


HALVED = number("C5", r"\(a\) is below (-\d+) ")
NEARLY = number("C5", r"\(b\) above (-[\d.]+) points")
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
        # a mean of logarithms of ratios is a difference of means of logarithms
        tests.append([values(name, lambda row, m=measure: np.log2(row.curvature[m])) for name in (penalty, "sgd")])
        tests.append([values(name, lambda row: 100 * row.final_heldout_accuracy) for name in (penalty, "sam")])
    for (_, comparison), (one, other) in zip(evidence, tests, strict=True):
        assert_is_test_of(comparison, one - other, 4)
        assert comparison.p == pytest.approx(min(1, 4 * scipy.stats.ttest_rel(one, other).pvalue), rel=1e-6)


@pytest.mark.parametrize(("moved", "changed"), [("sgd", [0, 2]), ("sam", [1, 3])])
def test_that_c5_pairs_seeds(moved, changed) -> None:
    cases = some_of_c5()
    shuffled = [
        [replace(e, rows=e.rows[1:] + e.rows[:1]) if e.contestant.method == moved else e for e in case]
        for case in cases
    ]
    for i, ((_, paired), (_, other)) in enumerate(zip(c5(cases).evidence, c5(shuffled).evidence, strict=True)):
        assert other.interval.mean == pytest.approx(paired.interval.mean)
        assert (abs(other.p - paired.p) > 1e-6) == (i in changed)


def test_that_c5_survives_networks_without_curvature_and_keeps_their_accuracy() -> None:
    found, reference = c5(some_of_c5(diverged=[2])), c5(some_of_c5())
    assert found.outcome != "holds"
    for i in (1, 3):
        assert found.evidence[i] == reference.evidence[i]


def test_that_c5_takes_a_trace_below_zero_for_its_standard_error() -> None:
    case = made_case(("sgd", "sam", "gradient_norm", "hessian_trace"))
    accuracies = [0.5, 0.6, 0.7]
    plain = {"gradient_norm": [1.0] * 3, "trace": [8.0, 8.0, -1.0], "trace_error": [1.0, 1.0, 16.0]}
    penalised = {"gradient_norm": [1.0] * 3, "trace": [-3.0, 2.0, 4.0], "trace_error": [0.5, 0.5, 0.5]}
    entries = [
        made_entry(case, name, accuracies, penalised if name == "hessian_trace" else plain) for name in case.methods
    ]
    _, comparison = c5([entries]).evidence[2]
    assert_is_test_of(comparison, [math.log2(0.5 / 8), math.log2(2 / 8), math.log2(4 / 16)], 4)


# ---- C4


def by_coefficient() -> dict[int, tuple[int, ...]]:
    """Orders of five whose Spearman coefficient with 0, ..., 4 is each multiple of a tenth, by the classic formula."""
    found = {}
    for order in itertools.permutations(range(5)):
        squares = sum((a - b) ** 2 for a, b in enumerate(order))
        found.setdefault(round(10 * (1 - 6 * squares / (5 * 24))), order)
    return found


ORDERS = by_coefficient()
ORDER = tuple(generator(3).permutation(5))
"""Networks by gap, so that their place in the case says nothing."""


def entries_of_c4(tenths: Mapping[str, Sequence[int]], case: Case | None = None, peer: bool = True) -> list[Entry]:
    """Five networks whose rank correlations of a measure and the gap are so many tenths, seed by seed.

    The peer's, which should not count, would turn any correlation towards -1.
    """
    methods = (*FIVE, "peer_sam") if peer else FIVE
    case = case or made_case(methods)
    seeds = len(next(iter(tenths.values())))
    found = []
    for i, method in enumerate(methods):
        is_peer = method == "peer_sam"
        # ranks on an exponential scale: Pearson's coefficient would be another
        curvature = {
            name: [1e-9 if is_peer else math.exp(2 * ORDERS[t][ORDER[i]]) for t in of_seeds]
            for name, of_seeds in tenths.items()
        }
        gap = 0.9 if is_peer else 0.01 * (1 + ORDER[i])
        train = [0.95 - 0.01 * seed for seed in range(seeds)]
        found.append(made_entry(case, method, [t - gap for t in train], curvature, train))
    return found


def cases_of_c4(first: Sequence[int], second: Sequence[int], third: Sequence[int], fourth: Sequence[int]) -> list:
    """Two cases whose correlations of each measure have these means over cases, in tenths."""
    measures = dict(zip(CURVATURES, (first, second, third, fourth), strict=True))
    swing = [2, -2, 1, -1, 0, 3, -3, 2, -1, 0]
    return [
        entries_of_c4(
            {name: [t + sign * s for t, s in zip(of, swing, strict=True)] for name, of in measures.items()},
            made_case((*FIVE, "peer_sam"), name=f"case{sign}"),
        )
        for sign in (1, -1)
    ]


COUNTS = number("C4", r"mean is at least ([\d.]+) and")
# tenths of ten seeds each, with what their interval for four measures is
STRONG = [3, 4, 3, 4, 3, 3, 4, 3, 3, 1]
NEARLY_STRONG = [3, 3, 3, 4, 3, 3, 3, 3, 3, 1]
WEAK = [1, 2, 1, 2, 1, 2, 1, 2, 1, 2]
WIDE = [7, -3, 7, -3, 7, -3, 7, -3, 7, 7]
NEGATIVE = [-5, -6, -5, -6, -5, -6, -5, -6, -5, -6]
#: Its 95 % interval is above 0 and that for four measures is not; likewise below 0.3.
JUST_ABOVE_ALONE = [7, -1, 7, -1, 6, 0, 6, -1, 7, 2]
JUST_BELOW_ALONE = [4, -3, 4, -4, 4, -3, 3, -4, 4, -4]


def interval_of(tenths: Sequence[int], level: float) -> tuple[float, float]:
    found = scipy.stats.ttest_1samp(np.array(tenths) / 10, 0).confidence_interval(level)
    return found.low, found.high


def test_that_the_correlations_are_what_they_are_called() -> None:
    for tenths, holds, fails in (
        (STRONG, True, False),
        (NEARLY_STRONG, False, False),
        (WEAK, False, True),
        (WIDE, False, False),
        (NEGATIVE, False, True),
        (JUST_ABOVE_ALONE, False, False),
        (JUST_BELOW_ALONE, False, False),
    ):
        low, high = interval_of(tenths, 0.9875)
        assert (np.mean(tenths) / 10 >= COUNTS and low > 0, high < COUNTS) == (holds, fails)
    assert np.mean(NEARLY_STRONG) / 10 == pytest.approx(COUNTS - SLACK)
    assert np.mean(STRONG) / 10 == pytest.approx(COUNTS + SLACK)
    assert interval_of(NEARLY_STRONG, 0.9875)[0] > 0
    assert np.mean(JUST_ABOVE_ALONE) / 10 > COUNTS
    assert interval_of(JUST_ABOVE_ALONE, 0.95)[0] > 0
    assert interval_of(JUST_BELOW_ALONE, 0.95)[1] < COUNTS


@pytest.mark.parametrize(
    ("measures", "outcome"),
    [
        ((STRONG, STRONG, STRONG, STRONG), "holds"),
        ((STRONG, STRONG, STRONG, NEGATIVE), "holds"),
        ((NEGATIVE, STRONG, STRONG, STRONG), "holds"),
        ((STRONG, STRONG, NEARLY_STRONG, NEARLY_STRONG), "undecided"),
        ((STRONG, STRONG, WEAK, WEAK), "undecided"),
        ((STRONG, STRONG, WIDE, WIDE), "undecided"),
        ((STRONG, STRONG, JUST_ABOVE_ALONE, JUST_ABOVE_ALONE), "undecided"),
        ((WEAK, WEAK, WEAK, STRONG), "does not hold"),
        ((STRONG, NEGATIVE, WEAK, NEGATIVE), "does not hold"),
        ((WEAK, WEAK, WIDE, WIDE), "undecided"),
        ((WEAK, WEAK, JUST_BELOW_ALONE, JUST_BELOW_ALONE), "undecided"),
        ((WEAK, WEAK, NEARLY_STRONG, NEARLY_STRONG), "undecided"),
    ],
)
def test_that_c4_follows_its_rule_at_its_edges(measures, outcome) -> None:
    verdict = c4(cases_of_c4(*measures))
    assert (verdict.claim, verdict.outcome) == ("C4", outcome)


def test_that_c4_rests_on_tests_of_the_mean_correlation_over_cases() -> None:
    measures = (STRONG, WEAK, WIDE, NEGATIVE)
    evidence = c4(cases_of_c4(*measures)).evidence
    labels = ["gradient norm", "Hessian trace", "top eigenvalue", "m-sharpness"]
    for (what, comparison), label, tenths in zip(evidence, labels, measures, strict=True):
        assert label in what
        assert_is_test_of(comparison, np.array(tenths) / 10, 4)


def test_that_c4_takes_the_gap_and_not_the_accuracy() -> None:
    cases = cases_of_c4(STRONG, STRONG, STRONG, STRONG)
    # test accuracies that are opposite to the gaps become equal to them; the gaps stay
    for case in cases:
        for entry in case:
            for i, row in enumerate(entry.rows):
                entry.rows[i] = replace(row, final_heldout_accuracy=row.gap, final_train_accuracy=2 * row.gap)
    assert c4(cases).outcome == "holds"


@pytest.mark.parametrize("verdict", [c4, c5, c6])
def test_that_one_seed_decides_nothing(verdict) -> None:
    case = made_case(("sgd", "sam", "gradient_norm", "hessian_trace", "rsam", "rsam_stiefel"))
    entries = [
        made_entry(case, name, [0.5 - 0.03 * i], {key: [1.0 + i] for key in (*CURVATURES, "trace_error")})
        for i, name in enumerate(case.methods)
    ]
    found = verdict([entries])
    assert found.outcome == "undecided"
    assert all(math.isnan(comparison.p) for _, comparison in found.evidence)


# ---- rank correlations


def random_entries(seeds: int = 4, diverged: Mapping[str, Sequence[int]] | None = None) -> list[Entry]:
    """Nine networks and the peer's, with unrelated numbers."""
    rng = generator(5)
    methods = (
        "sgd",
        "adamw",
        "sam",
        "asam",
        "gradient_norm",
        "hessian_trace",
        "rsam",
        "riemannian_sgd",
        "rsam_stiefel",
    )
    case = made_case((*methods, "peer_sam"))
    return [
        made_entry(
            case,
            method,
            rng.uniform(0.3, 0.9, seeds),
            {name: rng.lognormal(size=seeds) for name in (*CURVATURES, "distance")},
            rng.uniform(0.9, 1, seeds),
            (diverged or {}).get(method, ()),
        )
        for method in case.methods
    ]


@pytest.mark.parametrize("measure", [*CURVATURES, "distance"])
def test_that_the_rank_correlation_is_that_of_scipy_without_the_peer(measure) -> None:
    entries = random_entries()
    for target, of in ((None, lambda row: row.gap), (accuracy, lambda row: row.final_heldout_accuracy)):
        found = rank_correlation(entries, measure) if target is None else rank_correlation(entries, measure, target)
        assert len(found) == 4
        for seed, coefficient in enumerate(found):
            rows = [entry.rows[seed] for entry in entries[:-1]]
            # Spearman's is Pearson's of the ranks
            ranks = [
                scipy.stats.rankdata(values) for values in ([r.curvature[measure] for r in rows], [of(r) for r in rows])
            ]
            assert coefficient == pytest.approx(np.corrcoef(ranks)[0, 1])


def test_that_the_peer_does_not_count_in_the_rank_correlation() -> None:
    tenths = {name: [5, -2, 10] for name in CURVATURES}
    for measure in CURVATURES:
        assert rank_correlation(entries_of_c4(tenths), measure) == pytest.approx([0.5, -0.2, 1.0])
        assert rank_correlation(entries_of_c4(tenths, peer=False), measure) == pytest.approx([0.5, -0.2, 1.0])


def test_that_networks_without_curvature_are_left_out_of_the_rank_correlation() -> None:
    lost = {"sam": [1, 2], "rsam": [2], "peer_sam": [0]}
    entries = random_entries(diverged=lost)
    for seed, coefficient in enumerate(rank_correlation(entries, "trace")):
        rows = [entry.rows[seed] for entry in entries[:-1] if seed not in lost.get(entry.contestant.method, ())]
        assert len(rows) == [9, 8, 7, 9][seed]
        reference = scipy.stats.spearmanr([r.curvature["trace"] for r in rows], [r.gap for r in rows])
        assert coefficient == pytest.approx(reference.statistic)


def test_that_c4_counts_seeds_with_networks_that_diverged() -> None:
    evidence = c4([random_entries(diverged={"sam": [1, 2]})]).evidence
    for (_, comparison), measure in zip(evidence, CURVATURES, strict=True):
        expected = rank_correlation(random_entries(diverged={"sam": [1, 2]}), measure)
        assert_is_test_of(comparison, expected, 4)


def test_that_a_seed_of_which_one_network_is_left_has_no_correlation() -> None:
    lost = {entry.contestant.method: [1] for entry in random_entries() if entry.contestant.method != "sgd"}
    found = rank_correlation(random_entries(diverged=lost), "trace")
    assert [math.isnan(value) for value in found] == [False, True, False, False]


# ---- within methods


def of_ranks(curvature: Sequence[Sequence[int]], gaps: Sequence[Sequence[int]], peer: bool = False) -> list[Entry]:
    """Entries of these curvatures and gaps, a line a method."""
    methods = [*FIVE, "hessian_trace", "gradient_norm"][: len(curvature)] + ["peer_sam"] * peer
    case = made_case(tuple(methods))
    lines = [*zip(curvature, gaps, strict=True)]
    if peer:
        lines.append((range(len(curvature[0])), range(len(curvature[0]))))
    return [
        made_entry(case, m, [0.9 - 0.01 * g for g in gap], {"trace": [2.0**c for c in values]}, [0.9] * len(gap))
        for m, (values, gap) in zip(methods, lines, strict=True)
    ]


def test_that_the_correlation_within_methods_is_the_mean_of_spearmans() -> None:
    # by 1 - 6 sum d^2 / (n (n^2 - 1)) with n = 5, which is 1 - sum d^2 / 20
    curvature = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [3, 1, 5, 2, 4]]
    gaps = [[1, 2, 3, 5, 4], [5, 4, 3, 2, 1], [1, 2, 3, 4, 5]]
    squares = [sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in zip(curvature, gaps, strict=True)]
    assert squares == [2, 40, 14]
    mean, _ = within_methods([of_ranks(curvature, gaps)], "trace")
    assert mean == pytest.approx((0.9 - 1.0 + 0.3) / 3)


def test_that_methods_and_cases_count_alike_in_the_correlation_within_methods() -> None:
    one = of_ranks([[1, 2, 3, 4]], [[1, 2, 3, 4]])
    three = of_ranks([[1, 2, 3, 4]] * 3, [[4, 3, 2, 1]] * 3)
    assert within_methods([one, three], "trace")[0] == pytest.approx((1 - 3) / 4)


def test_that_the_p_value_within_methods_is_that_of_all_orders_of_the_seeds() -> None:
    curvature = [[1, 2, 3, 4, 5], [2, 1, 4, 3, 5], [5, 1, 2, 4, 3]]
    gaps = [[2, 1, 3, 5, 4], [1, 2, 3, 4, 5], [1, 3, 2, 4, 5]]
    mean, p = within_methods([of_ranks(curvature, gaps)], "trace")

    def statistic(order: Sequence[int]) -> float:
        return np.mean(
            [scipy.stats.spearmanr(np.array(c)[list(order)], g).statistic for c, g in zip(curvature, gaps, strict=True)]
        )

    null = np.array([statistic(order) for order in itertools.permutations(range(5))])
    assert mean == pytest.approx(statistic(range(5)))
    # twice the smaller tail; sums of products in another order differ in the last digits
    tails = np.mean(null >= mean - 1e-9), np.mean(null <= mean + 1e-9)
    assert 0.01 < min(tails) < 0.3
    assert p == pytest.approx(min(1, 2 * min(tails)))


@pytest.mark.parametrize("copies", [1, 7])
def test_that_the_seeds_of_all_methods_are_permuted_jointly(copies) -> None:
    # methods that agree on every seed are worth one method: only 1 of 120 orders is as extreme, at either end
    ranks = [[1, 2, 3, 4, 5]] * copies
    assert within_methods([of_ranks(ranks, ranks)], "trace") == pytest.approx((1.0, 2 / 120))


@pytest.mark.parametrize("sign", [1, -1])
def test_that_perfect_correlation_within_methods_is_seen_at_ten_seeds(sign) -> None:
    ranks = [list(generator(i).permutation(10)) for i in range(4)]
    mean, p = within_methods([of_ranks(ranks, [[sign * r for r in line] for line in ranks])], "trace")
    assert mean == pytest.approx(sign)
    # 1 / 10! of the orders is as extreme, so that none but the given one is found among 2000
    assert p == pytest.approx(2 / 2001)


def test_that_unrelated_numbers_within_methods_have_p_values_of_all_sizes() -> None:
    found = []
    for i in range(40):
        rng = generator(100 + i)
        curvature = [list(rng.permutation(6)) for _ in range(3)]
        found.append(within_methods([of_ranks(curvature, [list(rng.permutation(6)) for _ in range(3)])], "trace")[1])
    # under the null a p-value is uniform, or larger: 40 of them are below 0.1 about 4 times, above 9 with odds of 1:100
    assert sum(p < 0.1 for p in found) <= 9
    assert sum(p > 0.5 for p in found) >= 10


def test_that_the_peer_does_not_count_within_methods() -> None:
    ranks, other = [[1, 2, 3, 4, 5], [2, 1, 3, 5, 4]], [[5, 3, 4, 2, 1], [3, 4, 5, 2, 1]]
    with_peer, without = (within_methods([of_ranks(ranks, other, peer)], "trace") for peer in (True, False))
    assert with_peer == pytest.approx(without)


def test_that_methods_with_a_network_that_diverged_do_not_count_within_methods() -> None:
    ranks = [[1, 2, 3, 4, 5]] * 3
    entries = of_ranks(ranks, [[1, 2, 3, 5, 4], [5, 4, 3, 2, 1], [2, 1, 3, 4, 5]])
    rows = entries[1].rows
    rows[2] = made_row(rows[2].run, diverged=True)
    assert within_methods([entries], "trace")[0] == pytest.approx(0.9)


def test_that_where_every_method_has_a_network_that_diverged_nothing_is_known_within_methods() -> None:
    entries = random_entries(diverged={entry.contestant.method: [1] for entry in random_entries()})
    assert all(map(math.isnan, within_methods([entries], "trace")))


@pytest.mark.filterwarnings("ignore:Precision loss")
def test_that_where_all_seeds_are_equal_nothing_correlates_within_a_method() -> None:
    entries = of_ranks([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5], [3, 3, 3, 3, 3]])
    for row in entries[1].rows:  # of equal accuracies, differences to the last digit would be ranked
        assert row.gap == entries[1].rows[0].gap
    assert within_methods([entries], "trace")[0] == pytest.approx(0.5)


# ---- small parts


def test_that_a_trace_that_is_not_positive_counts_as_its_standard_error() -> None:
    run = made_entry(made_case(), "sgd", [0.5]).rows[0].run

    def of(value: float, error: float) -> float:
        return positive(made_row(run, curvature={"trace": value, "trace_error": error}), "trace")

    assert of(3.0, 0.5) == 3.0
    assert of(0.2, 0.5) == 0.2
    assert of(-3.0, 0.5) == 0.5
    assert of(0.0, 0.5) == 0.5
    assert 0 < of(-3.0, 0.0) < 1e-9
    assert math.isnan(positive(made_row(run, diverged=True), "trace"))


def test_that_a_measure_is_nan_where_it_was_not_taken() -> None:
    run = made_entry(made_case(), "sgd", [0.5]).rows[0].run
    assert measured(made_row(run, curvature={"trace": 2.0}), "trace") == 2.0
    assert math.isnan(measured(made_row(run, diverged=True), "trace"))


def test_that_differences_are_in_points_and_signed() -> None:
    case = made_case()
    sgd, sam = made_entry(case, "sgd", [0.51, 0.4]), made_entry(case, "sam", [0.5, 0.6])
    assert differences(sgd, sam) == pytest.approx([1.0, -20.0])
    assert differences(sam, sgd) == pytest.approx([-1.0, 20.0])
    with pytest.raises(ValueError, match="shorter"):
        differences(sgd, made_entry(case, "sam", [0.5]))


def test_that_the_thresholds_are_those_that_were_fixed_before_the_runs() -> None:
    assert (COUNTS, HALVED, NEARLY, A_LITTLE) == (0.3, -1, -0.2, 0.2)


def test_that_the_rules_say_what_is_counted() -> None:
    words = {2: "two", 4: "four"}
    assert f"simultaneous for the {words[len(CURVATURES)]} measures" in text_of("C4")
    assert f"simultaneous for all {words[2 * len(PENALTIES)]}" in text_of("C5")
    assert f"simultaneous for the {words[len(claims.GEOMETRIES)]}" in text_of("C6")
    assert text_of("C4").count("for at least three of them") == 2
    assert number("C4", r"interval is below ([\d.]+)\.") == COUNTS
    assert number("C5", r"\(a\) is above (-\d+),") == HALVED
    assert "-1 (at least halved)" in text_of("C5")
    assert "(b) below 0." in text_of("C5")
    assert "one of them is above 0." in text_of("C6")
