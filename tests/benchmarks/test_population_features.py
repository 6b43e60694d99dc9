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
    for trajectory in networks.values():
        trajectory.checkpoints[:] = [replace(c, levels=()) for c in trajectory.checkpoints]
    assert matched_level(networks) == 1.0  # which no network reaches


def test_that_networks_that_diverged_are_left_out_and_counted_among_those_that_reach_no_loss() -> None:
    networks = population(by_margins, bases=4)
    half = list(networks)[: len(networks) // 2]
    networks |= {member: replace(networks[member], diverged=True) for member in half}
    for points in (at_end(networks), at_level(networks, 0.3)):
        assert [p.member for p in points] == [m for m in networks if m not in half]
        assert all(member not in half for p in points for member, _ in p.relatives)
    assert len(networks) % 2 == 0 and matched_level(networks) == 0.3  # just half of them reach it
    networks[at_end(networks)[0].member] = networks[half[0]]
    assert matched_level(networks) == 1.0


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


def test_that_relative_margins_forget_a_factor_of_all_margins() -> None:
    (point, *_) = at_end(population(by_margins, bases=1))
    before = matrix([point], "margins, relative")
    for layer in LAYERS:
        numbers = point.checkpoint.margins[layer]
        for name in ("log Q1", "log median", "log Q3", "log mean"):
            numbers[STATISTICS.index(name)] += np.log(2)  # type: ignore[operator]
    np.testing.assert_allclose(matrix([point], "margins, relative"), before)
    point.checkpoint.margins["first"][STATISTICS.index("log median")] += 1  # type: ignore[operator]
    changed = matrix([point], "margins, relative") - before
    # the median is subtracted from both quartiles of its layer
    assert sorted(changed[0])[:2] == pytest.approx([-1, -1]) and np.count_nonzero(changed.round(9)) == 2


def test_that_baselines_and_rivals_are_what_they_are_called() -> None:
    (point, *_) = at_end(population(by_margins, bases=1))
    point.checkpoint.scores.update(train_loss=0.25, train_accuracy=0.9)
    others = {"norm": 2.0, "distance": 3.0, "log_path": 4.0, "log_spectral": 5.0, "loss_sum": 7.0, "confidence": 0.8}
    moved = {"mixup_accuracy": 0.7, "mixup_loss": 0.5, "moved_accuracy": 0.6, "moved_loss": 1.0}
    point.checkpoint.others.update({**others, **moved, "kv_input": -0.002, "kv_last": 0.0})
    v = point.member.hyperparameters
    expected = {
        "loss and accuracy": [0.25, np.log(0.25), 0.9],
        "weight norms": [np.log(2), np.log(3), 4, 5],
        "sum of losses": [np.log(7 * v["batch_size"])],  # large batches are fewer
        "confidence": [0.1],
        "robustness": [0.7, 0.5, np.log(0.5), 0.6, 1.0, 0.0],
        "robustness gaps": [0.2, -0.25, 0.3, -0.75],
        "k-variance margins": [-np.log(3), 0.0],
    }
    assert {name: matrix([point], name)[0].tolist() for name in expected} == {
        name: pytest.approx(numbers) for name, numbers in expected.items()
    }


def test_that_ranks_forget_scale_and_shift() -> None:
    points = at_end(population(by_margins, bases=2))
    ranks = matrix(points, "margins, ranks")
    assert sorted(ranks[:, 0]) == pytest.approx(np.arange(1, len(points) + 1) / len(points))
    for point in points:
        for layer in LAYERS:
            margins = point.checkpoint.margins[layer]
            margins[:] = [3 * (m or 0.0) + 5 for m in margins]
    assert np.array_equal(matrix(points, "margins, ranks"), ranks)
