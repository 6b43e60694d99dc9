"""The statistics of the population, against other implementations and by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from benchmarks.report.intervals import Interval
from benchmarks.studies.population.design import AXES, Design, Member, members
from benchmarks.studies.population.features import Point
from benchmarks.studies.population.measurement import Checkpoint
from benchmarks.studies.population.prediction import (
    Networks,
    adjusted_r2,
    around,
    bootstrap,
    held_out_error,
    k_fold,
    k_fold_r2,
    predictions,
    transfer,
)
from benchmarks.studies.population.ranks import correlate, holm, pairs
from benchmarks.studies.population.rules import RULES
from rsam.margins import GapModel, granulated_tau


def _made(features: int = 5, bases: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(bases), random.integers(1, 6, bases))
    x = random.normal(size=(len(groups), features)) + random.normal(size=(bases, features))[groups]
    return x, x @ np.arange(features) + 2 * random.normal(size=len(groups)), groups


def test_that_fits_of_products_are_those_of_the_gap_model() -> None:
    x, y, groups = _made()
    # other units, a column that depends on others, and one that is constant
    x = np.column_stack((100 + 1e-3 * x, x[:, 0] + x[:, 1], np.full(len(x), 7.0)))
    model = GapModel().fit(x, y, groups)
    networks, weights = Networks(x, y, groups), np.ones((1, 30))
    assert adjusted_r2(networks)(weights)[0] == pytest.approx(model.adjusted_r2, abs=1e-9)
    assert k_fold_r2(networks)(weights)[0] == pytest.approx(model.k_fold_r2(), abs=1e-9)
    assert held_out_error(networks)(weights)[0] == pytest.approx(((y - model.held_out()) ** 2).sum(), rel=1e-9)


def test_that_a_feature_that_varies_only_where_nothing_is_fitted_is_not_used() -> None:
    x, y, groups = _made()
    rare = np.where(groups == 3, np.random.default_rng(2).normal(size=len(y)), 1.0)  # constant without that group
    x = np.column_stack((x, rare))
    networks, model = Networks(x, y, groups), GapModel().fit(x, y, groups)
    # what a ridge of 1e-12 leaves of double precision where a feature is constant is some 1e-4 of its coefficient
    assert k_fold_r2(networks)(np.ones((1, 30)))[0] == pytest.approx(model.k_fold_r2(), abs=1e-5)


def test_that_statistics_of_a_sample_are_those_of_its_networks_as_often_as_they_were_drawn() -> None:
    x, y, groups = _made()
    networks, weights = Networks(x, y, groups), np.random.default_rng(1).integers(0, 3, 30)
    sample, rows = 1.0 * weights[None], np.repeat(np.arange(len(y)), weights[groups])
    assert adjusted_r2(networks)(sample)[0] == pytest.approx(GapModel().fit(x[rows], y[rows]).adjusted_r2, abs=1e-9)
    predicted = np.empty(len(y))
    for fold in networks.folds:  # folds are of all base configurations: one that was drawn twice is in one of them
        own = np.isin(groups, fold)
        others = rows[~own[rows]]
        predicted[own] = GapModel().fit(x[others], y[others]).predict(x[own])
    error, variation = ((predicted - y)[rows] ** 2).sum(), len(rows) * y[rows].var()
    assert held_out_error(networks)(sample)[0] == pytest.approx(error, rel=1e-9)
    assert k_fold_r2(networks)(sample)[0] == pytest.approx(1 - error / variation, abs=1e-9)
    correlation = np.corrcoef(predicted[rows], y[rows])[0, 1]
    assert k_fold(networks)(sample)[:, 0] == pytest.approx([1 - error / variation, correlation], abs=1e-9)


def test_that_a_feature_that_a_sample_does_not_vary_is_no_obstacle() -> None:
    x, y, groups = _made()
    x[:, 0] = groups == 0  # constant in samples without the first base configuration
    networks, weights = Networks(x, y, groups), np.r_[0, np.ones(29, dtype=int)]
    rows = np.flatnonzero(groups > 0)
    coefficients = networks.fit(1.0 * weights[None])[0]
    expected = GapModel().fit(x[rows, 1:], y[rows]).predict(x[rows, 1:])
    # the ridge of 1e-12 leaves about 1e-16 / 1e-12 of the direction that is not determined
    np.testing.assert_allclose(networks.design[rows] @ coefficients, expected, rtol=1e-3)


def test_that_samples_that_leave_nothing_to_estimate_have_no_r2() -> None:
    x, y, groups = _made()
    networks = Networks(x, y, groups)
    few, all_equal = np.eye(30)[:1], Networks(x, np.ones(len(y)), groups)
    assert networks.counts[0] <= x.shape[1]
    assert np.isnan(adjusted_r2(networks)(few)).all()
    for statistic in (adjusted_r2, k_fold_r2, k_fold):
        assert np.isnan(statistic(all_equal)(np.ones((1, 30)))).all()


@pytest.mark.parametrize("drawn", ["each once", "some twice"])
def test_that_what_is_carried_over_never_saw_the_base_configuration(drawn: str) -> None:
    x, y, groups = _made()
    first = np.arange(len(y)) % 2 == 0
    for g in range(30):  # every base configuration in both parts
        first[np.flatnonzero(groups == g)[0]] = True
    keep = np.isin(groups, np.unique(groups[~first]))
    x, y, groups, first = x[keep], y[keep], np.unique(groups[keep], return_inverse=True)[1], first[keep]
    count = groups.max() + 1
    weights = np.ones(count, dtype=int) if drawn == "each once" else np.random.default_rng(1).integers(0, 3, count)
    rows = np.repeat(np.arange(len(y)), weights[groups])
    fits, tests = rows[first[rows]], rows[~first[rows]]
    whole = Networks(x, y, groups)
    fitted, others = whole.part(first), whole.part(~first)
    without = np.full(len(y), np.nan)
    for fold in fitted.folds:
        out = np.isin(groups, fold)
        used = fits[~out[fits]]
        without[out] = GapModel().fit(x[used], y[used]).predict(x[out])
    for leave_out, predicted in ((True, without), (False, GapModel().fit(x[fits], y[fits]).predict(x))):
        r2, error, bias = transfer(fitted, others, leave_out=leave_out)(1.0 * weights[None])[:, 0]
        errors = (predicted - y)[tests]
        assert r2 == pytest.approx(1 - (errors**2).sum() / ((y[tests] - y[tests].mean()) ** 2).sum())
        assert error == pytest.approx(np.sqrt((errors**2).mean()))
        assert bias == pytest.approx(errors.mean())
    if drawn == "each once":
        np.testing.assert_allclose(predictions(fitted, others), without[~first], rtol=1e-9)


def test_that_intervals_reach_as_far_as_the_rules_say_and_leave_out_what_is_not_known() -> None:
    assert "1.96 standard deviations either way" in RULES
    assert around(3.0, np.array([1.0, np.nan, 5.0])) == Interval(3.0, 1.96 * 2)


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
    expected = granulated_tau(
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
    points = [_point(m, i, i / 1000) for i, m in enumerate(members(Design("mnist1d", bases=20)))]
    assert correlate(points, lambda p: None, lambda p: p.test_error) is None
    lost = points[0].member, next(p.member for p in points if p.member.base == 1 and p.member.axis == "length")
    assert lost[0].axis == "base"  # all of its pairs go with it

    def measure(point: Point) -> float | None:
        return None if point.member in lost else point.checkpoint.others["norm"]

    found = correlate(points, measure, lambda p: p.test_error, fewest=1)
    kept = [p.member for p in points if p.member not in lost]
    assert found is not None and found.pairs == pairs(kept)
    assert pairs(kept) == Counter(m.axis for m in kept if m.base > 0 and m.axis in AXES) and pairs(kept)["length"] == 18


def test_that_intervals_resample_base_configurations_with_all_their_pairs() -> None:
    (base, *_), agreeing = members(Design("mnist1d", bases=1)), 60
    points = []
    for number in range(100):  # both pairs of a base configuration agree, or neither
        for axis in ("base", "width", "decay"):
            member = replace(base, base=number, axis=axis)
            sign = 0 if axis == "base" else 1 if number < agreeing else -1
            points.append(_point(member, 0.0 if axis == "base" else 1.0, 0.5 + 0.1 * sign))
    found = correlate(points, lambda p: p.checkpoint.others["norm"], lambda p: p.test_error)
    assert found is not None and found.average.mean == pytest.approx(0.2)
    # the mean of 100 signs has a standard error of sqrt(1 - 0.2²) / 10, and so has the average of two equal ones; of
    # 2,000 samples it is known to 1.6 %
    error = np.sqrt(1 - 0.2**2) / 10
    for interval in (found.average, *found.by_axis.values()):
        assert interval.half_width == pytest.approx(1.96 * error, rel=0.05)
    assert found.p == pytest.approx(scipy.stats.chi2.sf((0.2 / error) ** 2, 1), abs=0.01)  # two-sided


def test_that_holms_correction_steps_down() -> None:
    # 4 x 0.005; 3 x 0.01; 2 x 0.03; and 0.04, which must not be less than the one before it
    p = {"a": 0.04, "b": 0.005, "c": 0.03, "d": 0.01}
    assert holm(p) == pytest.approx({"a": 0.06, "b": 0.02, "c": 0.06, "d": 0.03})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
