"""Networks at one time of their training, and the numbers that may predict their gap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.studies.population.features import (
    BASELINES,
    FEATURES,
    at_end,
    at_fraction,
    at_level,
    at_matched_level,
    matched_level,
    matrix,
)
from benchmarks.studies.population.measurement import LAYERS, STATISTICS
from tests.benchmarks.made_population import by_margins, population


def test_that_every_set_of_features_has_numbers() -> None:
    points = at_level(population(by_margins, bases=3), 0.3)
    twins = {p.member.values for p in points if "seed" in p.member.axis}
    for name in (*FEATURES, *BASELINES):
        numbers = matrix(points, name)
        assert len(numbers) == len(points)
        wanted = [name != "disagreement of twins" or p.member.values in twins for p in points]
        assert np.array_equal(np.isfinite(numbers).all(1), wanted)


def test_that_disagreement_guesses_the_test_error() -> None:
    networks = population(by_margins, bases=1)
    predictions = {"base": "0123", "seed": "0129", "length": "0000"}
    found = {
        member: replace(trajectory, checkpoints=[replace(trajectory.checkpoints[-1], predictions=predictions[axis])])
        for member, trajectory in networks.items()
        if (axis := member.axis) in predictions
    }
    base = next(point for point in at_end(found) if point.member.axis == "base")
    accuracy = base.checkpoint.scores["train_accuracy"]
    # one of four differs from the twin's; on average over both relatives, two of four
    assert matrix([base], "disagreement of twins")[0, 0] == pytest.approx(accuracy - 3 / 4)
    assert matrix([base], "disagreement of relatives")[0, 0] == pytest.approx(accuracy - 2 / 4)


def test_that_margins_at_a_loss_do_not_look_ahead() -> None:
    networks = population(by_margins, bases=2)
    early, late = at_fraction(networks, 0.2), at_end(networks)
    assert np.isnan(matrix(early, "margins at loss 0.3")).all()  # which falls below that later
    assert np.array_equal(matrix(early, "margins at loss 1.0"), matrix(early, "margins"))
    assert np.array_equal(matrix(late, "margins at loss 1.0"), matrix(early, "margins"))


def test_that_networks_meet_at_the_lowest_loss_that_half_of_them_reach() -> None:
    networks = population(by_margins, bases=4)  # all fall below 1, and below 0.3
    assert matched_level(networks) == 0.3
    few = dict.fromkeys(list(networks)[: len(networks) // 2 + 1])
    for member in few:
        last = networks[member].checkpoints[-1]
        networks[member].checkpoints[-1] = replace(last, levels=())
    assert matched_level(networks) == 1.0
    assert len(at_matched_level(networks)) == len(networks)


def test_that_output_margins_over_norms_forget_the_scale_of_the_last_layer() -> None:
    points = at_end(population(by_margins, bases=1))
    names = ("output margins over spectral norms", "output margins over path norm")
    before = matrix(points, *names)
    for point in points:  # logits twice as large, by weights twice as large
        logarithms = slice(STATISTICS.index("log Q1"), STATISTICS.index("log Q3") + 1)
        margins = point.checkpoint.margins["output"]
        margins[logarithms] = [(m or 0.0) + np.log(2) for m in margins[logarithms]]
        for norm in ("log_spectral", "log_path"):
            point.checkpoint.others[norm] = (point.checkpoint.others[norm] or 0.0) + np.log(2)
    np.testing.assert_allclose(matrix(points, *names), before)


def test_that_ranks_forget_scale_and_shift() -> None:
    points = at_end(population(by_margins, bases=2))
    ranks = matrix(points, "margins, ranks")
    assert sorted(ranks[:, 0]) == pytest.approx(np.arange(1, len(points) + 1) / len(points))
    for point in points:
        for layer in LAYERS:
            margins = point.checkpoint.margins[layer]
            margins[:] = [3 * (m or 0.0) + 5 for m in margins]
    assert np.array_equal(matrix(points, "margins, ranks"), ranks)
