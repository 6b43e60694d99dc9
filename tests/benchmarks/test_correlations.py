"""That rank correlations, over networks and within methods, are those of scipy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import scipy.stats

from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.images.claims import CURVATURES, accuracy, c4, gap, rank_correlation, within_methods
from tests.benchmarks.entries import made_case, made_entry, made_row
from tests.benchmarks.verdicts import FIVE, assert_is_test_of, entries_of_c4, generator


def random_entries(seeds: int = 4, diverged: Mapping[str, Sequence[int]] | None = None) -> list[Entry]:
    """Make entries of nine networks and the peer's, with independent numbers."""
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
        for method in (c.name for c in case.contestants)
    ]


@pytest.mark.parametrize("measure", [*CURVATURES, "distance"])
def test_that_the_rank_correlation_is_that_of_scipy_without_the_peer(measure) -> None:
    entries = random_entries()
    for target, of in ((None, gap), (accuracy, lambda row: row.scores["accuracy"])):
        actual = rank_correlation(entries, measure) if target is None else rank_correlation(entries, measure, target)
        assert len(actual) == 4
        for seed, coefficient in enumerate(actual):
            rows = [entry.rows[seed] for entry in entries[:-1]]
            # Spearman's coefficient is Pearson's coefficient of the ranks
            ranks = [
                scipy.stats.rankdata(values) for values in ([r.measures[measure] for r in rows], [of(r) for r in rows])
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
        rows = [entry.rows[seed] for entry in entries[:-1] if seed not in lost.get(entry.name, ())]
        assert len(rows) == [9, 8, 7, 9][seed]
        reference = scipy.stats.spearmanr([r.measures["trace"] for r in rows], [gap(r) for r in rows])
        assert coefficient == pytest.approx(reference.statistic)


def test_that_c4_counts_seeds_with_networks_that_diverged() -> None:
    evidence = c4([random_entries(diverged={"sam": [1, 2]})]).evidence
    for (_, comparison), measure in zip(evidence, CURVATURES, strict=True):
        expected = rank_correlation(random_entries(diverged={"sam": [1, 2]}), measure)
        assert_is_test_of(comparison, expected, 4)


def test_that_a_seed_of_which_one_network_is_left_has_no_correlation() -> None:
    lost = {entry.name: [1] for entry in random_entries() if entry.name != "sgd"}
    actual = rank_correlation(random_entries(diverged=lost), "trace")
    assert [math.isnan(value) for value in actual] == [False, True, False, False]


def of_ranks(curvature: Sequence[Sequence[int]], gaps: Sequence[Sequence[int]], peer: bool = False) -> list[Entry]:
    """Make entries from curvatures and gaps, one row per method."""
    methods = [*FIVE, "hessian_trace", "gradient_norm"][: len(curvature)] + ["peer_sam"] * peer
    case = made_case(tuple(methods))
    lines = [*zip(curvature, gaps, strict=True)]
    if peer:
        lines.append((range(len(curvature[0])), range(len(curvature[0]))))
    return [
        made_entry(
            case, m, [0.9 - 0.01 * g for g in of_seeds], {"trace": [2.0**c for c in values]}, [0.9] * len(of_seeds)
        )
        for m, (values, of_seeds) in zip(methods, lines, strict=True)
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
    # twice the smaller tail; the order of summation changes the last digits
    tails = np.mean(null >= mean - 1e-9), np.mean(null <= mean + 1e-9)
    assert 0.01 < min(tails) < 0.3
    assert p == pytest.approx(min(1, 2 * min(tails)))


@pytest.mark.parametrize("copies", [1, 7])
def test_that_the_seeds_of_all_methods_are_permuted_jointly(copies) -> None:
    # methods that agree on every seed count as one: only 1 of 120 orders is as extreme, at either end
    ranks = [[1, 2, 3, 4, 5]] * copies
    assert within_methods([of_ranks(ranks, ranks)], "trace") == pytest.approx((1.0, 2 / 120))


@pytest.mark.parametrize("sign", [1, -1])
def test_that_perfect_correlation_within_methods_is_seen_at_ten_seeds(sign) -> None:
    ranks = [list(generator(i).permutation(10)) for i in range(4)]
    mean, p = within_methods([of_ranks(ranks, [[sign * r for r in line] for line in ranks])], "trace")
    assert mean == pytest.approx(sign)
    # only 1 / 10! of the orders is as extreme, so that of 2000 orders only the given one is
    assert p == pytest.approx(2 / 2001)


def test_that_unrelated_numbers_within_methods_have_p_values_of_all_sizes() -> None:
    p_values = []
    for i in range(40):
        rng = generator(100 + i)
        curvature = [list(rng.permutation(6)) for _ in range(3)]
        p_values.append(within_methods([of_ranks(curvature, [list(rng.permutation(6)) for _ in range(3)])], "trace")[1])
    # under the null p-values are uniform or larger: about 4 of 40 are below 0.1, more than 9 with a chance of 1 in 100
    assert sum(p < 0.1 for p in p_values) <= 9
    assert sum(p > 0.5 for p in p_values) >= 10


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
    entries = random_entries(diverged={entry.name: [1] for entry in random_entries()})
    assert all(map(math.isnan, within_methods([entries], "trace")))


@pytest.mark.filterwarnings("ignore:Precision loss")
def test_that_where_all_seeds_are_equal_nothing_correlates_within_a_method() -> None:
    entries = of_ranks([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5], [3, 3, 3, 3, 3]])
    for row in entries[1].rows:  # for equal accuracies differences in the last digit would be ranked
        assert gap(row) == gap(entries[1].rows[0])
    assert within_methods([entries], "trace")[0] == pytest.approx(0.5)
