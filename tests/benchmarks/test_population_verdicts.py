"""The verdicts on claims C1 to C4, on made-up networks and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.report.intervals import Interval
from benchmarks.studies.population.claims import (
    Carried,
)
from benchmarks.studies.population.figures import claim_groups
from benchmarks.studies.population.measurement import STATISTICS
from benchmarks.studies.population.ranks import Correlation
from benchmarks.studies.population.verdicts import (
    findings,
    judge_added,
    judge_c1,
    judge_c2,
    judge_c3,
    judge_c4,
    overcome,
    verdicts,
)
from tests.benchmarks.made_population import by_margins, population


def test_that_margins_that_decide_the_gap_are_found_to() -> None:
    networks = population(by_margins, early=lambda margins, loss: 20 * loss)
    found = findings(networks)
    assert found is not None
    assert found.margins.adjusted.mean == pytest.approx(1)
    assert found.baseline.held_out.high < 0.2
    assert found.added.mean == pytest.approx(1, abs=0.01)
    assert found.early.high < 0.5
    assert found.carried.r2.mean == pytest.approx(1)
    assert found.curvature.average.mean == 1
    text = "\n".join(verdicts({"one": found, "two": found}))
    for claim, verdict in (("C1", "holds"), ("C2", "holds"), ("C3", "does not hold"), ("C4", "holds")):
        assert f"**{claim} {verdict}:**" in text
    assert "Whether margins add to loss and accuracy: yes" in text


def test_that_verdicts_stand_beside_what_the_loss_alone_says() -> None:
    found = findings(population(lambda margins, loss: 60 * loss))
    assert found is not None
    assert found.loss.average.low > 0.9  # the test error is a function of the loss, but for a noise of 0.01
    assert found.early_baseline.mean == pytest.approx(1, abs=0.05)  # early as late
    _, second, _, fourth = verdicts({"one": found, "two": found})
    assert f"(loss and accuracy alone: {found.early_baseline:.2f} and {found.early_baseline:.2f})" in second
    assert f"(of the training loss itself: {found.loss.average:.2f} and {found.loss.average:.2f})" in fourth


def test_that_networks_at_chance_are_left_out_beside_the_verdicts() -> None:
    networks = population(by_margins)
    at_chance = [t for m, t in networks.items() if m.axis in ("base", "length")][:12]
    for trajectory in at_chance:  # with margins that are far from all others', and a gap of 0
        last = trajectory.checkpoints[-1]
        last.scores.update(train_loss=2.3, train_accuracy=0.1, test_accuracy=0.1)
        last.margins["first"] = [100.0] * len(STATISTICS)
    everyone, learned = findings(networks), findings(networks, learned=True)
    assert everyone is not None and learned is not None
    assert everyone.margins.networks - learned.margins.networks == 12
    assert learned.margins.adjusted.mean == pytest.approx(1) and learned.carried.r2.mean == pytest.approx(1)
    assert everyone.margins.adjusted.mean < 0.9 and everyone.carried.r2.mean < 0.9
    groups = claim_groups({"made up": everyone}, {"made up": learned})
    drawn = [[(line.label, line.interval, line.tone) for line in group.lines] for group in groups]
    first, beside = ("made up", "undecided"), ("accuracy ≥ 20%", "beside")
    for lines, both in zip(
        drawn,
        [[f.margins.adjusted for f in (everyone, learned)], [f.early for f in (everyone, learned)],
         [f.carried.r2 for f in (everyone, learned)], [everyone.curvature.average]],
        strict=True,
    ):  # fmt: skip
        assert lines == [(*name[:1], e, *name[1:]) for name, e in zip((first, beside), both, strict=False)]


def _estimate(value: float, reach: float = 0.05) -> Interval:
    return Interval(value, reach)


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        (0.9, 0.85, "holds"),  # 0.85 ± 0.05 reaches the published 0.89
        (0.9, 0.83, "does not hold"),
        (0.83, 0.9, "does not hold"),
        (np.nan, 0.9, "undecided"),
    ],
)
def test_that_c1_follows_its_rule(one: float, other: float, verdict: str) -> None:
    assert judge_c1([_estimate(one), _estimate(other)]) == verdict


def test_that_margins_add_where_they_do_on_both_sets() -> None:
    assert judge_added([_estimate(0.06), _estimate(0.2)]) == "yes"
    assert judge_added([_estimate(0.1), _estimate(0.04)]) == judge_added([_estimate(0.1)]) == "not shown"


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        (0.44, 0.3, "holds"),
        (0.4, 0.48, "undecided"),
        (0.4, 0.52, "undecided"),
        (0.4, 0.56, "does not hold"),
        (0.56, 0.4, "does not hold"),
        (np.nan, 0.4, "undecided"),
    ],
)
def test_that_c2_follows_its_rule(one: float, other: float, verdict: str) -> None:
    assert judge_c2([_estimate(one), _estimate(other)]) == verdict


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ((0.44, 0), (0.9, -2.6), "holds"),
        ((0.44, 0), (0.9, 2.6), "holds"),
        ((0.48, 0), (0.9, 2.6), "undecided"),
        ((0.44, 0), (0.9, 2.4), "undecided"),
        ((0.44, 0), (0.9, -2.4), "undecided"),
        ((0.56, 1.4), (0.8, -1.4), "does not hold"),
        ((0.52, 0), (0.8, 0), "undecided"),
        ((0.7, 1.6), (0.8, 0), "undecided"),
        ((0.7, -1.6), (0.8, 0), "undecided"),
        ((0.7, 0), (0.2, 0), "undecided"),
    ],
)
def test_that_c3_follows_its_rule(one: tuple[float, float], other: tuple[float, float], verdict: str) -> None:
    # R² ± 0.05, and bias ± 0.5 points
    assert judge_c3([_carried(*one), _carried(*other)]) == verdict


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ((0.26, 0.1), (0.3, -0.24), "holds"),
        ((0.22, 0.1), (0.3, 0.1), "undecided"),
        ((0.4, 0.1), (0.3, -0.26), "undecided"),
        ((0.4, 0.1), (0.18, 0.4), "undecided"),
        ((0.4, 0.1), (0.14, 0.4), "does not hold"),
        ((0.14, 0.1), (0.4, 0.4), "does not hold"),
    ],
)
def test_that_c4_follows_its_rule(one: tuple[float, float], other: tuple[float, float], verdict: str) -> None:
    def correlation(mean: float, axis: float) -> Correlation:
        of_axes = {"depth": _estimate(0.5), "width": _estimate(axis)}
        return Correlation(_estimate(mean), of_axes, dict.fromkeys(of_axes, 9), 0.1)

    assert judge_c4([correlation(*one), correlation(*other)]) == verdict


@pytest.mark.parametrize(
    ("r2", "bias", "baseline", "found"),
    [
        (0.5, 1.9, 0.49, "overcome"),
        (0.5, -1.9, 0.49, "overcome"),
        (0.49, 0.0, 0.0, "not overcome"),
        (0.8, 2.0, 0.0, "not overcome"),
        (0.8, -2.0, 0.0, "not overcome"),
        (0.8, 0.0, 0.8, "not overcome"),
    ],
)
def test_that_c3_is_overcome_by_estimates_alone(r2: float, bias: float, baseline: float, found: str) -> None:
    assert overcome(_carried(r2, bias), _carried(baseline, 9.0)) == found


def _carried(r2: float, bias: float) -> Carried:
    return Carried(9, 9, _estimate(r2), _estimate(5.0), _estimate(bias, 0.5))


def test_that_no_claim_holds_on_one_set_alone() -> None:
    good = _carried(0.9, 0.0)
    assert judge_c1([_estimate(0.9)]) == "undecided"
    assert judge_c1([_estimate(0.5)]) == "does not hold"  # on either
    assert judge_c2([_estimate(0.3)]) == "undecided"
    assert judge_c3([good]) == "undecided"
    assert judge_c3([replace(good, r2=_estimate(0.1))]) == "undecided"
    assert judge_c4([Correlation(_estimate(0.4), {}, {}, 0.1)]) == "undecided"
