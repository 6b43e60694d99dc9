"""That regrets are what they are by hand, and without the luck of whoever is best of many."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.report.intervals import Interval
from benchmarks.studies.one_rho.regret import (
    CLOSE,
    Table,
    choose,
    likely,
    maximum,
    mean,
    noise,
    percentile,
    resample,
)
from benchmarks.studies.one_rho.rules import (
    BELOW,
    BEST,
    JUDGED,
    LARGEST,
    RULES,
    WORST,
    _verdict,
    answers,
    contenders,
    deciding,
)


def exact(accuracies: dict[str, list[float]], best: float = 90.0) -> list[Table]:
    """Make levels of methods at rho 1 whose seeds agree but for what they share, beside a cell that is always best."""
    levels = range(len(next(iter(accuracies.values()))))
    return [
        {("best", 0.0): [best - 1, best + 1], **{(m, 1.0): [a[i] - 1, a[i] + 1] for m, a in accuracies.items()}}
        for i in levels
    ]


def noisy(truth: np.ndarray, seeds: int, deviation: float, random: np.random.Generator) -> list[Table]:
    """Measure true accuracies ``(levels, cells)`` with noise, and with seeds that are good or bad for all cells."""
    return [
        {("m", float(i)): list(a + shared + deviation * random.standard_normal(seeds)) for i, a in enumerate(row)}
        for row, shared in ((row, 3 * random.standard_normal(seeds)) for row in truth)
    ]


def test_that_regrets_are_those_by_hand() -> None:
    tables = exact({"a": [90.0, 88.0, 80.0], "b": [89.0, 89.5, 90.0]})
    found = resample(tables, {"a": 1.0, "b": 1.0})
    np.testing.assert_allclose(found.measured, [[0, 2, 10], [1, 0.5, 0]])
    # without noise nothing is corrected, and intervals have no width
    for statistic, expected in (
        (mean(0), 4.0),
        (maximum(0), 10.0),
        (percentile(0), 2 + 0.8 * 8),  # 1.8 of the way from the first to the last of three
        (mean(1), 0.5),
    ):
        assert found.estimate(statistic).mean == pytest.approx(expected)
        assert found.estimate(statistic).half_width == pytest.approx(0, abs=1e-9)
    assert found.at("b", 1).mean == pytest.approx(0.5)


def test_that_noise_is_what_neither_cell_nor_seed_explains() -> None:
    cells, seeds = np.array([[80.0], [70.0], [60.0]]), np.array([0.0, 5.0, -3.0, 1.0])
    assert noise(cells + seeds) == pytest.approx(0, abs=1e-12)
    random = np.random.default_rng(0)
    # of n squares the root of the mean is within 3 / sqrt(2 n) of the deviation
    many = np.linspace(0, 4, 400)[:, None] + seeds + 0.7 * random.standard_normal((400, 4))
    assert noise(many) == pytest.approx(0.7, rel=3 / np.sqrt(2 * 399 * 3))
    assert noise(cells) == noise(seeds[None]) == 0


def test_that_equal_contenders_are_taken_for_equal_and_others_left_alone() -> None:
    # means differ by as much as their error: nothing but noise; the last cell has collapsed
    accuracies = np.array([[80.0, 82.0], [82.0, 80.0], [81.0, 81.0], [40.0, 40.0]])
    centres, deviations, errors = likely(accuracies)
    np.testing.assert_allclose(centres, [81, 81, 81, 40])
    np.testing.assert_allclose(deviations[:3], 0)
    assert deviations[3] == errors[3] == errors[0] > 0
    # far apart in units of their error: they stay
    apart = np.array([[80.0, 80.02], [82.0, 81.98], [84.0, 84.02]])
    np.testing.assert_allclose(likely(apart)[0], apart.mean(1), atol=1e-3)
    assert CLOSE > 4  # or they would not all be contenders


def test_that_a_cell_that_collapses_with_one_seed_of_two_is_uncertain_and_makes_no_other_one_so() -> None:
    table = {("a", 1.0): [80.0, 82.0], ("b", 1.0): [80.2, 81.8], ("c", 1.0): [75.0, 61.0], ("d", 1.0): [75.0, 10.0]}
    errors = likely(np.array(list(table.values())))[2]
    assert errors[0] == errors[1] < 0.2
    # beside what the seeds do to contenders c falls from -5.1 to -20.9
    assert errors[2] == pytest.approx(min(np.std([-5.1, -20.9], ddof=1) / np.sqrt(2), (81 - 68) / 4))
    assert errors[3] == pytest.approx((81 - 42.5) / 4)
    found = resample([table], {"b": 1.0, "d": 1.0})
    assert found.at("d", 0).half_width == pytest.approx(1.96 * errors[3], rel=0.1)
    assert abs(found.at("b", 0).mean) < 0.1 and found.at("b", 0).half_width < 1


@pytest.mark.parametrize("scatter", [0.3, 1.0])
def test_that_correction_takes_the_luck_away(scatter) -> None:
    random = np.random.default_rng(1)
    errors = []
    for _ in range(30):
        truth = 80 + scatter * random.standard_normal((20, 30))
        regrets = truth.max(1) - truth[:, -1]
        found = resample(noisy(truth, 2, 0.9, random), {"m": 29.0}, draws=200)
        for statistic, true in ((mean(0), regrets.mean()), (percentile(0), np.quantile(regrets, 0.9))):
            errors.append((float(statistic(found.measured)) - true, found.estimate(statistic).mean - true))
    naive, corrected = np.array(errors).reshape(30, 2, 2).mean(0).T
    assert (naive > 0.3).all()
    assert (abs(corrected) < naive / 2).all()


def test_that_intervals_of_differences_cover() -> None:
    random = np.random.default_rng(2)
    covered = []
    for _ in range(80):
        truth = 80 + random.standard_normal((20, 20))
        truth[:, -2] -= 2 * random.random(20)
        tables = [
            {("a" if k == ("m", 18.0) else "b" if k == ("m", 19.0) else "m", k[1]): v for k, v in table.items()}
            for table in noisy(truth, 2, 0.9, random)
        ]
        found = resample(tables, {"a": 18.0, "b": 19.0}, draws=200)
        regrets = truth.max(1)[:, None] - truth[:, -2:]
        true = np.diff(np.quantile(regrets, 0.9, axis=0))[0]
        interval = found.estimate(lambda r: percentile(1)(r) - percentile(0)(r))
        covered.append(interval.low <= true <= interval.high)
    # 95 %, less three standard errors of 80 draws, less some for what is approximate
    assert np.mean(covered) > 0.85


def test_that_the_rho_of_the_least_mean_regret_is_chosen_and_the_smaller_of_two() -> None:
    tables = [
        {("a", 0.1): [80.0], ("a", 0.2): [82.0], ("a", 0.4): [79.0], ("b", 1.0): [99.0]},
        {("a", 0.1): [80.0], ("a", 0.2): [78.0], ("a", 0.4): [10.0], ("a", 0.8): [99.0]},
    ]
    assert choose(tables, "a") == 0.1  # 0.8 is not at both levels, and 0.2 is as good
    assert choose(tables[:1], "a") == 0.2


# -- verdicts --------------------------------------------------------------------------------------------------------


def test_that_a_method_holds_whose_percentile_is_small_and_a_point_below_both_peers() -> None:
    flat = {"sam": [87.0] * 10, "asam": [87.5] * 10}
    cases = {
        "rsam_angle": ([88.6] * 10, "holds"),
        "rsam": ([88.4] * 10, "does not hold"),  # above what is asked, by 0.1
        "rsam_point": ([89.0] * 10, "holds"),
        "layerwise_sam": ([87.0] * 10, "does not hold"),
    }
    found = answers(
        resample(exact({**flat, **{m: a for m, (a, _) in cases.items()}}), dict.fromkeys([*flat, *cases], 1.0))
    )
    assert {method: answer.verdict for method, answer in found.items()} == {m: v for m, (_, v) in cases.items()}
    assert found["rsam_angle"].percentile.mean == pytest.approx(1.4)
    assert found["rsam_angle"].below["sam"].mean == pytest.approx(1.6)
    # a point less than SAM, but not than ASAM
    close = {"sam": [85.0] * 10, "asam": [89.5] * 10, "rsam": [90.0] * 10}
    assert answers(resample(exact(close), dict.fromkeys(close, 1.0)))["rsam"].verdict == "does not hold"


@pytest.mark.parametrize(
    ("own", "below", "verdict"),
    [
        ((1.4, 0.5), ((1.1, 0.5), (1.1, 1.0)), "holds"),
        ((1.5, 0.0), ((1.0, 0.9), (1.0, 0.9)), "holds"),
        ((1.4, 0.5), ((1.1, 0.5), (1.1, 1.2)), "undecided"),  # the interval of a difference includes 0
        ((1.6, 0.5), ((1.1, 0.5), (1.1, 0.5)), "undecided"),
        ((1.4, 0.5), ((1.1, 0.5), (0.9, 0.5)), "undecided"),
        ((1.7, 0.1), ((3.0, 0.5), (3.0, 0.5)), "does not hold"),
        ((1.4, 0.5), ((3.0, 0.5), (0.9, 0.05)), "does not hold"),
    ],
)
def test_that_verdicts_follow_the_rule_at_its_edges(own, below, verdict) -> None:
    assert _verdict(Interval(*own), [Interval(*one) for one in below]) == verdict


def test_that_what_noise_could_turn_is_undecided() -> None:
    random = np.random.default_rng(3)
    tables = [
        {(m, 1.0): list(a + random.standard_normal(2)) for m, a in (("sam", 80.0), ("asam", 80.0), ("rsam", 81.2))}
        for _ in range(4)
    ]
    regrets = resample(tables, {"sam": 1.0, "asam": 1.0, "rsam": 1.0})
    found = answers(regrets)["rsam"]
    assert found.verdict == "undecided"
    # intervals of six methods cover together if each leaves out a sixth of 5 %
    alone = regrets.estimate(percentile(regrets.row("rsam")))
    assert found.percentile.half_width == pytest.approx(alone.half_width * 2.6383 / 1.95996, rel=1e-4)
    assert any(interval.low < 0 < interval.high for interval in found.below.values())


def test_that_the_rules_say_what_is_computed() -> None:
    text = " ".join(RULES.split())
    for part in (
        f"at most {LARGEST} points and at least {BELOW:g} point below SAM's",
        f"over the {len(JUDGED)} methods",
        f"the {WORST} levels",
        f"the {BEST} best cells",
        f"at most {CLOSE:g} points below",
    ):
        assert part in text
    assert Interval(LARGEST, 0.0).mean == 1.5 and BELOW == 1


def test_that_levels_decide_at_which_a_peer_or_the_leading_method_does_worst() -> None:
    accuracies = {
        "sam": [80.0, 90, 81, 90, 82, 90, 90, 90, 90, 90],
        "asam": [90.0, 90, 90, 70, 71, 90, 72, 90, 90, 90],
        "rsam": [90.0, 50, 50, 50, 50, 50, 50, 50, 50, 50],
        "rsam_angle": [90.0, 90, 90, 90, 90, 90, 90, 85, 86, 87],
    }
    tables = exact(accuracies)
    assert deciding(tables, dict.fromkeys(accuracies, 1.0)) == [0, 2, 3, 4, 7, 8]


def test_that_every_method_and_the_best_cells_get_further_seeds() -> None:
    table = {("a", 0.1): [80.0], ("a", 0.2): [70.0], ("b", 1.0): [60.0], ("b", 2.0): [79.0], ("base", 0.0): [78.0]}
    assert contenders(table, {"a": 0.1, "b": 1.0}) == [("a", 0.1), ("b", 1.0), ("b", 2.0), ("base", 0.0)]
    assert all(len(contenders(table, {"a": r})) == 4 for r in (0.2,))
    assert list(itertools.islice(contenders(table, {"a": 0.1}), 3)) == [("a", 0.1), ("b", 2.0), ("base", 0.0)]
