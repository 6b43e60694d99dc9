"""The statistics of the population, against other implementations and by hand."""

from __future__ import annotations

import numpy as np
import pytest

import rsam
from benchmarks.report.intervals import Interval
from benchmarks.studies.population.design import AXES, Design, Member, members
from benchmarks.studies.population.features import Point
from benchmarks.studies.population.measurement import Checkpoint
from benchmarks.studies.population.prediction import (
    Networks,
    adjusted_r2,
    bootstrap,
    held_out_error,
    k_fold,
    k_fold_r2,
    transfer,
)
from benchmarks.studies.population.ranks import correlate, holm


def _made(features: int = 5, bases: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(bases), random.integers(1, 6, bases))
    x = random.normal(size=(len(groups), features)) + random.normal(size=(bases, features))[groups]
    return x, x @ np.arange(features) + 2 * random.normal(size=len(groups)), groups


def test_that_fits_of_products_are_those_of_the_gap_model() -> None:
    x, y, groups = _made()
    x = np.column_stack((100 + 1e-3 * x, x[:, 0] + x[:, 1]))  # other units, and a column that depends on others
    model = rsam.margins.GapModel().fit(x, y, groups)
    networks, weights = Networks(x, y, groups), np.ones((1, 30))
    assert adjusted_r2(networks)(weights)[0] == pytest.approx(model.adjusted_r2, abs=1e-9)
    assert k_fold_r2(networks)(weights)[0] == pytest.approx(model.k_fold_r2(), abs=1e-9)
    assert held_out_error(networks)(weights)[0] == pytest.approx(((y - model.held_out()) ** 2).sum(), rel=1e-9)


def test_that_predictions_without_the_own_fold_are_correlated_with_the_truth() -> None:
    x, y, groups = _made()
    found = k_fold(Networks(x, y, groups))
    held_out = rsam.margins.GapModel().fit(x, y, groups).held_out()
    r2 = k_fold_r2(Networks(x, y, groups))(np.ones((1, 30)))[0]
    assert found(np.ones((1, 30)))[:, 0] == pytest.approx([r2, np.corrcoef(held_out, y)[0, 1]], abs=1e-9)
    weights = np.random.default_rng(1).integers(0, 3, 30)
    networks = Networks(x, y, groups)
    predicted = np.empty(len(y))
    for fold in range(10):  # of a sample in which base configurations count several times, each in its own fold
        own = networks.fold[groups] == fold
        rows = np.concatenate([np.repeat(np.flatnonzero(~own & (groups == g)), weights[g]) for g in range(30)])
        coefficients = np.linalg.lstsq(networks.design[rows], y[rows], rcond=None)[0]
        predicted[own] = networks.design[own] @ coefficients
    rows = np.repeat(np.arange(len(y)), weights[groups])
    assert found(1.0 * weights[None])[1, 0] == pytest.approx(np.corrcoef(predicted[rows], y[rows])[0, 1], abs=1e-9)


def test_that_weights_count_base_configurations_several_times() -> None:
    x, y, groups = _made()
    networks, weights = Networks(x, y, groups), np.random.default_rng(1).integers(0, 3, 30)
    rows = np.concatenate([np.flatnonzero(groups == g) for g in range(30) for _ in range(weights[g])])
    sample = 1.0 * weights[None]
    coefficients = networks.fit(sample)
    expected = np.linalg.lstsq(networks.design[rows], y[rows], rcond=None)[0]
    np.testing.assert_allclose(coefficients[0], expected, rtol=1e-9)
    assert networks.errors(coefficients, np.arange(30))[0] @ weights == pytest.approx(
        ((networks.design[rows] @ expected - y[rows]) ** 2).sum()
    )
    assert networks.variation(sample)[0] == pytest.approx(len(rows) * y[rows].var())


def test_that_what_is_carried_over_never_saw_the_base_configuration() -> None:
    x, y, groups = _made()
    first = np.arange(len(y)) % 2 == 0
    for g in range(30):  # every base configuration in both parts
        first[np.flatnonzero(groups == g)[0]] = True
    keep = np.isin(groups, np.unique(groups[~first]))
    x, y, groups, first = x[keep], y[keep], groups[keep], first[keep]
    count = len(np.unique(groups))
    whole = Networks(x, y, groups)
    fitted, others = whole.part(first), whole.part(~first)
    r2, error, bias = transfer(fitted, others)(np.ones((1, count)))[:, 0]
    predicted = np.full(len(y), np.nan)
    for fold in fitted.folds:
        out = np.isin(groups, fitted.names[fold])
        fit = rsam.margins.GapModel().fit(x[first & ~out], y[first & ~out])
        predicted[out] = fit.predict(x[out])
    errors = (predicted - y)[~first]
    assert r2 == pytest.approx(1 - (errors**2).sum() / ((y[~first] - y[~first].mean()) ** 2).sum())
    assert error == pytest.approx(np.sqrt((errors**2).mean()))
    assert bias == pytest.approx(errors.mean())


def test_that_the_bootstrap_has_the_spread_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap(lambda w: w @ values / w.sum(1), 400)
    assert found.mean == pytest.approx(values.mean())
    # half a width is 1.96 standard errors; of a thousand samples, within a tenth
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def _point(member: Member, measure: float, error: float) -> Point:
    scores = {"train_accuracy": 1.0, "test_accuracy": 1 - error, "train_loss": 0.1, "test_loss": 1.0}
    checkpoint = Checkpoint(1.0, (), scores, {}, {"norm": measure})
    return Point(member, None, checkpoint)  # type: ignore[arg-type]  # nothing else is looked at


def test_that_correlations_within_axes_are_the_granulated_coefficient() -> None:
    random = np.random.default_rng(3)
    design = Design("mnist1d", bases=4)  # of more, some differ in one axis by chance
    points = [_point(m, random.normal(), random.uniform()) for m in members(design) if "seed" not in m.axis]
    found = correlate(points, lambda p: p.checkpoint.others["norm"], lambda p: p.test_error, fewest=1)
    assert found is not None
    values = {a: [p.member.hyperparameters[a] for p in points] for a in AXES}
    expected = rsam.margins.granulated_tau(
        [p.checkpoint.others["norm"] or 0.0 for p in points], [p.test_error for p in points], values
    )
    assert {a: e.mean for a, e in found.by_axis.items()} == pytest.approx(expected.by_axis)
    assert found.average.mean == pytest.approx(expected.mean)
    assert found.worst == expected.worst_axis
    assert found.average.low < found.average.mean < found.average.high


def test_that_a_measure_that_ranks_rightly_has_a_coefficient_of_one() -> None:
    points = [_point(m, i, i / 1000) for i, m in enumerate(members(Design("mnist1d", bases=20)))]
    found = correlate(points, lambda p: p.checkpoint.others["norm"], lambda p: p.test_error)
    assert found is not None and found.average == Interval(1.0, 0.0)
    assert found.p == 0
    reverse = correlate(points, lambda p: -(p.checkpoint.others["norm"] or 0), lambda p: p.test_error)
    assert reverse is not None and reverse.average.mean == -1


def test_that_axes_with_few_pairs_do_not_count() -> None:
    points = [_point(m, i, i / 1000) for i, m in enumerate(members(Design("mnist1d", bases=10)))]
    found = correlate(points, lambda p: p.checkpoint.others["norm"], lambda p: p.test_error)
    assert found is not None and list(found.by_axis) == ["length"] and found.pairs == {"length": 10}


def test_that_ties_alone_are_no_evidence() -> None:
    points = [_point(m, i, 0.5) for i, m in enumerate(members(Design("mnist1d", bases=10)))]
    found = correlate(points, lambda p: p.checkpoint.others["norm"], lambda p: p.test_error)
    assert found is not None and found.average == Interval(0.0, 0.0) and found.p == 1


def test_that_networks_without_the_measure_are_left_out() -> None:
    points = [_point(m, i, i / 1000) for i, m in enumerate(members(Design("mnist1d", bases=2)))]
    assert correlate(points, lambda p: None, lambda p: p.test_error) is None


def test_that_holms_correction_steps_down() -> None:
    # 4 x 0.005; 3 x 0.01; 2 x 0.03; and 0.04, which must not be less than the one before it
    p = {"a": 0.04, "b": 0.005, "c": 0.03, "d": 0.01}
    assert holm(p) == pytest.approx({"a": 0.06, "b": 0.02, "c": 0.06, "d": 0.03})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
