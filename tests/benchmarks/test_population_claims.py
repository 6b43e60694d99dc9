"""The numbers that claims C1 to C4 are about, on made-up networks."""

from __future__ import annotations

import numpy as np
import pytest

import rsam
from benchmarks.studies.population.claims import (
    carried_over,
    curvature_and_outcome,
    early_share,
    given_the_loss,
    partial_r2,
    predicted,
)
from benchmarks.studies.population.features import (
    at_end,
    at_fraction,
    at_level,
    matrix,
    of_length,
)
from tests.benchmarks.made_population import by_margins, population


def test_that_margins_that_only_follow_the_loss_add_nothing() -> None:
    random = np.random.default_rng(2)
    networks = population(lambda margins, loss: 40 * loss + random.normal())
    added = partial_r2(at_end(networks), ["margins"], ["loss and accuracy"])
    assert added is not None and added.low < 0
    found = predicted(at_end(networks), "loss and accuracy")
    assert found is not None and found.held_out.mean > 0.9


def test_that_gaps_at_random_are_not_predicted() -> None:
    random = np.random.default_rng(1)
    networks = population(lambda margins, loss: 20 + random.normal())
    for name in ("margins", "margins, relative", "constrained margins", "loss and accuracy"):
        found = predicted(at_end(networks), name)
        assert found is not None and found.held_out.mean < 0.05
        inside = predicted(at_end(networks), name, within=True)
        assert inside is not None and inside.held_out.mean < 0.05


def test_that_a_bias_of_short_networks_is_found() -> None:
    networks = population(by_margins)
    for member, trajectory in networks.items():
        if member.hyperparameters["length"] == "quarter":
            trajectory.checkpoints[-1].scores["test_accuracy"] += 0.07
    full, short = (of_length(at_end(networks), n) for n in ("full", "quarter"))
    found = carried_over(full, short, "margins")
    assert found is not None and found.bias.mean == pytest.approx(7) and found.error.mean == pytest.approx(7)
    share = early_share(at_fraction(networks, 0.2), at_end(networks), "margins")
    assert share is not None


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
