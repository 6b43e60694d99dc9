"""The numbers that claims C1 to C4 are about, on made-up networks."""

from __future__ import annotations

import numpy as np
import pytest

import rsam
from benchmarks.studies.population.claims import (
    carried_further,
    carried_over,
    curvature_and_outcome,
    early_and_late,
    early_share,
    given_the_loss,
    partial_r2,
    predicted,
    usable,
)
from benchmarks.studies.population.features import (
    at_end,
    at_fraction,
    at_level,
    matrix,
    of_length,
)
from benchmarks.studies.population.verdicts import (
    judge_c2,
)
from tests.benchmarks.made_population import by_margins, population, without_margins


def test_that_margins_that_only_follow_the_loss_add_nothing() -> None:
    random = np.random.default_rng(2)
    networks = population(lambda margins, loss: 40 * loss + random.normal())
    added = partial_r2(at_end(networks), ["margins"], ["loss and accuracy"])
    assert added is not None and added.low < 0
    found = predicted(at_end(networks), "loss and accuracy")
    assert found is not None and found.held_out.mean > 0.9


def test_that_margins_are_asked_what_they_add_to_the_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    points = at_end(population(lambda margins, loss: by_margins(margins, loss) + 40 * loss, bases=20))
    added = partial_r2(points, ["margins"], ["loss and accuracy"])
    assert added is not None and added.mean == pytest.approx(1)  # neither of the two decides the gap alone


def test_that_within_an_architecture_its_mean_gap_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    networks = population(by_margins, bases=20)
    for member, trajectory in networks.items():
        v = member.hyperparameters
        trajectory.checkpoints[-1].scores["test_accuracy"] -= 0.1 * (v["width"] + v["depth"] + v["batch_norm"])
    among_all, inside = (predicted(at_end(networks), "margins", within=within) for within in (False, True))
    assert among_all is not None and among_all.adjusted.mean < 0.9
    # fitted to what is left of margins, which decide the rest of the gap
    assert inside is not None and inside.adjusted.mean == pytest.approx(1)


def test_that_a_fit_within_architectures_pays_for_their_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    random = np.random.default_rng(8)
    points = at_end(population(lambda margins, loss: by_margins(margins, loss) + 5 * random.normal(), bases=9))
    x, gaps = matrix(points, "margins"), np.array([point.gap for point in points])
    kinds = [tuple(p.member.hyperparameters[a] for a in ("width", "depth", "batch_norm")) for p in points]
    own = np.array([[kind == other for other in sorted(set(kinds))] for kind in kinds], dtype=float)

    def variance(design: np.ndarray) -> float:
        rest = gaps - design @ np.linalg.lstsq(design, gaps, rcond=None)[0]
        return rest @ rest / (len(gaps) - design.shape[1])

    found = predicted(points, "margins", within=True)
    assert found is not None
    assert found.adjusted.mean == pytest.approx(1 - variance(np.column_stack((own, x))) / variance(own), abs=1e-8)


def test_that_the_outcome_is_the_one_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    points = at_end(population(by_margins, bases=10))
    for point in points:  # a feature that is the test error
        scores = point.checkpoint.scores
        point.checkpoint.others["confidence"] = scores["train_accuracy"] - (1 - scores["test_accuracy"])
    error, gap = (predicted(points, "confidence", outcome=outcome) for outcome in ("test_error", "gap"))
    assert error is not None and error.adjusted.mean == pytest.approx(1)
    assert gap is not None and gap.adjusted.mean < 0.9


def test_that_too_few_or_equal_networks_are_not_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    points = at_end(population(by_margins, bases=7))
    features = matrix(points, "margins").shape[1]
    assert features == 4 * 7  # the input and three hidden layers, with seven numbers each
    assert predicted(points[: features + 10], "margins") is not None
    assert predicted(points[: features + 9], "margins") is None
    assert partial_r2(points[: features + 9], ["margins"], ["loss and accuracy"]) is None
    for point in points:
        point.checkpoint.scores.update(train_accuracy=0.1, test_accuracy=0.1)
    assert predicted(points, "margins") is None


def test_that_gaps_at_random_are_not_predicted() -> None:
    random = np.random.default_rng(1)
    networks = population(lambda margins, loss: 20 + random.normal())
    for name in ("margins", "margins, relative", "constrained margins", "loss and accuracy"):
        found = predicted(at_end(networks), name)
        assert found is not None and found.held_out.mean < 0.05
        inside = predicted(at_end(networks), name, within=True)
        assert inside is not None and inside.held_out.mean < 0.05


def test_that_an_early_share_is_of_the_same_networks_and_of_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    random = np.random.default_rng(6)
    networks = population(lambda margins, loss: by_margins(margins, loss) + random.normal(), bases=20)
    early, late = at_fraction(networks, 0.2), at_end(networks)
    share = early_share(early[5:], late[:-5], "margins")
    assert share == early_share(early[5:-5], late[5:-5], "margins") and share is not None
    both = early_and_late(early[5:], late[:-5], "margins")
    alone = [predicted(points[5:-5], "margins") for points in (early, late)]
    assert both is not None and both == pytest.approx([one.held_out.mean for one in alone if one])
    assert share.mean == pytest.approx(both[0] / both[1])
    for point in early[:5]:
        for numbers in point.checkpoint.margins.values():
            numbers[:] = [None] * len(numbers)
    assert early_share(early, late[:-5], "margins") == share
    nothing = population(lambda margins, loss: random.normal(), bases=20)  # R² at the end is below 0
    share = early_share(at_fraction(nothing, 0.2), at_end(nothing), "margins")
    assert share is not None and np.isnan([share.mean, share.half_width]).all()
    assert judge_c2([share, share]) == "undecided"
    assert early_share(early[:5], late[:5], "margins") is None


def test_that_only_base_configurations_with_both_are_carried_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    random = np.random.default_rng(7)
    networks = population(lambda margins, loss: by_margins(margins, loss) + random.normal(), bases=20)
    full, short = (of_length(at_end(networks), n) for n in ("full", "quarter"))
    late, early = ([p for p in points if p.member.base > 0] for points in (full, short))
    assert carried_over(full, early, "margins") == carried_over(late, early, "margins")
    assert carried_over(late, short, "margins") == carried_over(late, early, "margins")
    few = [p for p in early if p.member.base < 3]
    assert carried_over(full, few, "margins") is None


def test_that_a_bias_of_short_networks_is_found() -> None:
    networks = population(by_margins)
    for member, trajectory in networks.items():
        if member.hyperparameters["length"] == "quarter":
            trajectory.checkpoints[-1].scores["test_accuracy"] += 0.07
    full, short = (of_length(at_end(networks), n) for n in ("full", "quarter"))
    found = carried_over(full, short, "margins")
    assert found is not None and found.bias.mean == pytest.approx(7) and found.error.mean == pytest.approx(7)


def test_that_features_carry_further_by_the_difference_of_r2_on_the_same_networks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.studies.population.claims.SAMPLES", 10)
    networks = population(by_margins, bases=20)
    without_margins(networks, 4)
    full, short = (of_length(at_end(networks), n) for n in ("full", "quarter"))
    names, baseline = ["margins"], ["loss and accuracy"]
    more = carried_further(full, short, names, baseline, leave_out=False)
    kept = [usable(points, *names) for points in (full, short)]
    alone = [carried_over(*kept, *features, leave_out=False) for features in (names, baseline)]
    assert more is not None and alone[0] is not None and alone[1] is not None
    assert more.mean == pytest.approx(alone[0].r2.mean - alone[1].r2.mean)
    # margins decide the gap in every sample, so that the difference spreads as the baseline alone
    assert more.half_width == pytest.approx(alone[1].r2.half_width, rel=1e-6)
    assert carried_further(full[:5], short[:1], names, baseline, leave_out=False) is None


def test_that_a_measure_that_follows_the_loss_says_nothing_beside_it() -> None:
    random = np.random.default_rng(5)
    networks = population(lambda margins, loss: 60 * loss + random.normal())
    points = at_level(networks, 0.3)
    for point in points:
        point.checkpoint.curvature["euclidean_trace"] = point.checkpoint.scores["train_loss"] + 1e-2 * random.normal()
    plain = curvature_and_outcome(points, "euclidean_trace")
    given = given_the_loss(points, "euclidean_trace")
    assert plain is not None and plain.average.low > 0.5
    assert given is not None and given.average.low < 0 < given.average.high
    # what is not the loss stays
    kept = given_the_loss(points, "riemannian_trace")
    assert kept is not None and kept.average.mean == pytest.approx(1)


def test_that_one_fit_for_all_is_that_of_the_gap_model() -> None:
    random = np.random.default_rng(4)
    networks = population(lambda margins, loss: by_margins(margins, loss) + random.normal(), bases=20)
    full, short = (of_length(at_end(networks), n) for n in ("full", "quarter"))
    found = carried_over(full, short, "margins", leave_out=False)
    errors = rsam.margins.GapModel().fit(matrix(full, "margins"), [p.gap for p in full]).predict(
        matrix(short, "margins")
    ) - [p.gap for p in short]
    assert found is not None
    assert found.bias.mean == pytest.approx(errors.mean())
    assert found.r2.mean == pytest.approx(1 - (errors**2).sum() / (len(short) * np.var([p.gap for p in short])))
