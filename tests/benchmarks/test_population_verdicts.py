"""The verdicts on claims C1 to C4, on made-up networks and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.report.intervals import Interval
from benchmarks.studies.population.claims import (
    Carried,
)
from benchmarks.studies.population.measurement import STATISTICS
from benchmarks.studies.population.ranks import Correlation
from benchmarks.studies.population.verdicts import (
    findings,
    judge_added,
    judge_c1,
    judge_c2,
    judge_c3,
    judge_c4,
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
        assert f"**{claim} {verdict}**" in text
    assert "Whether margins add to loss and accuracy: yes" in text


def test_that_verdicts_stand_beside_what_the_loss_alone_says() -> None:
    found = findings(population(lambda margins, loss: 60 * loss))
    assert found is not None
    assert found.loss.average.low > 0.9  # the test error is a function of the loss, but for a noise of 0.01
    assert found.early_baseline.mean == pytest.approx(1, abs=0.05)  # early as late
    _, second, _, fourth = verdicts({"one": found, "two": found})
    assert f"loss and accuracy alone {found.early_baseline:.2f}" in second
    assert f"by the training loss alone {found.loss.average:.2f}" in fourth


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


def _estimate(value: float, reach: float = 0.05) -> Interval:
    return Interval(value, reach)


def test_that_verdicts_follow_their_rules() -> None:
    assert judge_c1([_estimate(0.9), _estimate(0.85)]) == "holds"
    assert judge_c1([_estimate(0.9), _estimate(0.8)]) == "does not hold"
    assert judge_added([_estimate(0.1), _estimate(0.2)]) == "yes"
    assert judge_added([_estimate(0.1), _estimate(0.04)]) == judge_added([_estimate(0.1)]) == "not shown"
    assert judge_c2([_estimate(0.4), _estimate(0.3)]) == "holds"
    assert judge_c2([_estimate(0.4), _estimate(0.6)]) == "does not hold"
    assert judge_c2([_estimate(0.4), _estimate(0.48)]) == "undecided"

    def carried(r2: float, bias: float) -> Carried:
        return Carried(9, 9, _estimate(r2), _estimate(5.0), _estimate(bias, 0.5))

    assert judge_c3([carried(0.2, 0), carried(0.9, -3)]) == "holds"
    assert judge_c3([carried(0.7, 0), carried(0.8, 1)]) == "does not hold"
    assert judge_c3([carried(0.7, 0), carried(0.2, 0)]) == "undecided"

    def correlation(mean: float, axis: float) -> Correlation:
        return Correlation(_estimate(mean), {"width": _estimate(axis)}, {"width": 9}, 0.1)

    assert judge_c4([correlation(0.4, 0.1), correlation(0.3, -0.2)]) == "holds"
    assert judge_c4([correlation(0.4, 0.1), correlation(0.3, -0.4)]) == "undecided"
    assert judge_c4([correlation(0.4, 0.1), correlation(0.1, 0.4)]) == "does not hold"


def test_that_no_claim_holds_on_one_set_alone() -> None:
    good = Carried(9, 9, _estimate(0.9), _estimate(5.0), _estimate(0.0, 0.5))
    assert judge_c1([_estimate(0.9)]) == "undecided"
    assert judge_c1([_estimate(0.5)]) == "does not hold"  # on either
    assert judge_c2([_estimate(0.3)]) == "undecided"
    assert judge_c3([good]) == "undecided"
    assert judge_c3([replace(good, r2=_estimate(0.1))]) == "undecided"
    assert judge_c4([Correlation(_estimate(0.4), {}, {}, 0.1)]) == "undecided"
