"""That the gap model is a least-squares fit, and its errors are those for configurations it has not seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geoopt
import numpy as np
import pytest
import torch
from scipy.stats import t as student
from torch import nn

from rsam.margins import GapModel, Statistics, distances, kv_margins, margins, statistics
from tests.margins.problems import classes, loader, normal


def problem(networks: int = 40, features: int = 3, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(networks, features)) * [10.0, 1.0, 0.1][:features] + 5
    return x, x @ [0.02, -0.1, 3.0][:features] + noise * random.normal(size=networks)


def by_hand(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Compute coefficients, their standard errors, R² and adjusted R² from the normal equations."""
    design = np.column_stack((np.ones(len(x)), x))
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y
    residual = y - design @ beta
    n, p = x.shape
    error = np.sqrt(residual @ residual / (n - p - 1) * np.diag(inverse))
    r2 = 1 - residual @ residual / ((y - y.mean()) @ (y - y.mean()))
    return beta[1:], error[1:], r2, 1 - (1 - r2) * (n - 1) / (n - p - 1)


def test_that_fit_and_errors_are_those_of_the_normal_equations() -> None:
    x, y = problem()
    model = GapModel().fit(x, y)
    beta, error, r2, adjusted = by_hand(x, y)
    assert model.r2 == pytest.approx(r2, rel=1e-9)
    assert model.adjusted_r2 == pytest.approx(adjusted, rel=1e-9)
    actual = model.coefficients(0.9)
    scale = x.std(0)
    reach = student.ppf(0.95, 36) * error * scale
    np.testing.assert_allclose(actual.values, beta * scale, rtol=1e-9)
    np.testing.assert_allclose(actual.low, beta * scale - reach, rtol=1e-9)
    np.testing.assert_allclose(actual.high, beta * scale + reach, rtol=1e-9)


def test_that_dependent_features_change_nothing_and_do_not_count() -> None:
    x, y = problem()
    wide = np.column_stack((x[:, 0], np.ones(40), x[:, 0] * 2 - x[:, 1], x[:, 1:], x.sum(1)))
    plain, model = GapModel().fit(x, y), GapModel().fit(wide, y)
    assert model.dropped == ("feature 1", "feature 3", "feature 5")
    assert model.adjusted_r2 == pytest.approx(plain.adjusted_r2, rel=1e-9)
    np.testing.assert_allclose(model.held_out(), plain.held_out(), rtol=1e-6)


def test_that_the_bootstrap_covers_what_student_covers_where_errors_are_independent() -> None:
    x, y = problem(400)
    model = GapModel().fit(x, y)
    by_formula, by_samples = model.coefficients(), model.coefficients(method="bootstrap")
    widths = (by_samples.high - by_samples.low) / (by_formula.high - by_formula.low)
    np.testing.assert_allclose(widths, 1, atol=0.15)  # 400 networks and 1000 samples have errors of about 5 % each
    one, same, other = (model.coefficients(method="bootstrap", samples=20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.low, same.low) and not np.array_equal(one.low, other.low)


def test_that_the_bootstrap_resamples_whole_groups() -> None:
    # ten copies of each network: formulas count ten times as many networks, groups do not
    x, y = problem(30)
    copies, groups = (np.repeat(x, 10, 0), np.repeat(y, 10)), np.repeat(np.arange(30), 10)
    model = GapModel().fit(*copies, groups=groups)
    once = GapModel().fit(x, y).coefficients()
    naive, grouped = model.coefficients(), model.coefficients(method="bootstrap")
    assert ((naive.high - naive.low) < 0.4 * (once.high - once.low)).all()
    assert ((grouped.high - grouped.low) > 0.6 * (once.high - once.low)).all()


def test_that_held_out_predictions_know_nothing_of_their_group() -> None:
    # features that identify the configuration, and gaps that depend on nothing else
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 5)
    x = np.eye(12)[groups] + 0.01 * random.normal(size=(60, 12))
    y = random.normal(size=12)[groups]
    assert GapModel().fit(x, y).k_fold_r2() > 0.9  # information leaks from network to network
    assert GapModel().fit(x, y, groups=groups).k_fold_r2() < 0.2


def test_that_shuffled_gaps_are_not_predicted() -> None:
    x, y = problem(60)
    random = np.random.default_rng(1)
    actual = [GapModel().fit(x, random.permutation(y)).k_fold_r2() for _ in range(12)]
    assert np.mean(actual) < 0 + 3 * np.std(actual) / 12**0.5
    assert GapModel().fit(x, y).k_fold_r2() > max(actual)


def test_that_k_fold_r2_leaves_out_one_group_after_the_other() -> None:
    x, y = problem(12, 1)
    groups = np.repeat(np.arange(4), 3)
    squares = 0.0
    for g in range(4):
        fit = groups != g
        slope, intercept = np.polyfit(x[fit, 0], y[fit], 1)
        squares += ((y[~fit] - slope * x[~fit, 0] - intercept) ** 2).sum()
    expected = 1 - squares / ((y - y.mean()) ** 2).sum()
    assert GapModel().fit(x, y, groups).k_fold_r2(4) == pytest.approx(expected, rel=1e-9)


def test_that_a_feature_that_varies_in_one_fold_only_predicts_the_mean_of_the_others_there() -> None:
    x, y = np.eye(6)[:, 5:], problem(6)[1]
    assert GapModel().fit(x, y).held_out(6)[5] == pytest.approx(y[:5].mean(), rel=1e-12)


def test_that_features_that_vary_by_rounding_do_not_vary() -> None:
    x, y = np.full((12, 1), 0.1), problem(12)[1]
    x[4] = np.nextafter(0.1, 1)  # one unit in the last place, which least squares would explain the gap of
    with pytest.raises(ValueError, match="no feature varies between networks"):
        GapModel().fit(x, y)
    last = x.copy()
    last[11] = 0.2
    assert GapModel().fit(last, y).held_out(12)[11] == pytest.approx(y[:11].mean(), rel=1e-12)


def test_that_a_bootstrap_of_samples_that_determine_no_coefficients_is_refused() -> None:
    # six features and a constant need seven networks, that is four of the six groups of two; of 6^6 samples
    # 6 hold one, 15 * 62 two and 20 * 540 three different groups: a quarter
    random = np.random.default_rng(0)
    x, y, groups = random.normal(size=(12, 6)), random.normal(size=12), np.arange(12) // 2
    model = GapModel().fit(x, y, groups)
    with pytest.raises(ValueError, match=r"of 6 groups hold too few .* 6 coefficients; take more groups") as error:
        model.coefficients(method="bootstrap")
    count, share = int(str(error.value).split()[0]), (6 + 15 * 62 + 20 * 540) / 6**6
    assert abs(count / 1000 - share) < 4 * (share * (1 - share) / 1000) ** 0.5


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


#: Options of margins, none of which is the default.
OPTIONS: dict[str, Any] = {"nearest": "any", "normalize": False, "eps": 0.01}


SCALED = {"1": geoopt.Scaled(geoopt.Euclidean(ndim=1), 2.0)}


def fitted(manifolds: Mapping[str, geoopt.Manifold] | None = None) -> GapModel:
    model = GapModel(["input", "1"], kind="moments", log="signed", **OPTIONS)
    data = normal(30, 4), classes(30)
    features = [model.features(network(seed), data, manifolds=manifolds) for seed in range(12)]
    return model.fit(features, np.random.default_rng(0).normal(size=12), groups=[f"width {i // 2}" for i in range(12)])


def test_that_a_gap_is_predicted_from_a_network_and_its_data() -> None:
    data = normal(30, 4, seed=7), classes(30)
    for manifolds in (None, SCALED):
        model = fitted(manifolds)
        actual = margins(network(20), data, ["input", "1"], manifolds=manifolds, **OPTIONS)
        expected = model.predict(statistics(actual, "moments", log="signed"))
        found = model.predict_gap(network(20), loader(data, 7, 23), manifolds=manifolds)
        assert found == pytest.approx(float(expected[0]), rel=1e-9)


def test_that_a_saved_model_is_the_same_and_not_pickled(tmp_path: Path) -> None:
    model, data = fitted(), (normal(30, 4, seed=7), classes(30))
    model.save(tmp_path / "gap.npz")
    again = GapModel.load(tmp_path / "gap.npz")
    assert again.predict_gap(network(20), data) == model.predict_gap(network(20), data)
    assert (again.adjusted_r2, again.k_fold_r2(3), again.names) == (model.adjusted_r2, model.k_fold_r2(3), model.names)
    with np.load(tmp_path / "gap.npz", allow_pickle=False) as file:
        assert json.loads(str(file["settings"]))["layers"] == ["input", "1"]


def test_that_a_gap_is_not_predicted_from_margins_measured_differently(tmp_path: Path) -> None:
    data, model = (normal(30, 4, seed=7), classes(30)), fitted()
    model.save(tmp_path / "gap.npz")
    other = GapModel(model.layers, kind=model.kind, log=model.log, **{**OPTIONS, "nearest": "runner_up"})
    apart = r"measured with nearest='{}', .*manifolds={}, but those of the fit with nearest='any', .*manifolds={{}}"
    for again in (model, GapModel.load(tmp_path / "gap.npz")):
        with pytest.raises(ValueError, match=apart.format("any", "{'1': 'Scaled'}")):
            again.predict_gap(network(20), data, manifolds=SCALED)
        with pytest.raises(ValueError, match=apart.format("runner_up", "{}")):
            again.predict(other.features(network(20), data))
        again.nearest = "runner_up"  # set since, as those of a model fitted to features of another
        with pytest.raises(ValueError, match=apart.format("runner_up", "{}")):
            again.predict_gap(network(20), data)
    mixed = [m.features(network(20), data) for m in (other, fitted())]
    with pytest.raises(ValueError, match=r"features of network 1 were measured with nearest='any'.*measure all alike"):
        model.fit(mixed, [0.1, 0.2])


def test_that_features_made_by_hand_tell_how_they_were_measured() -> None:
    model, data = fitted(), (normal(30, 4, seed=7), classes(30))
    plain = margins(network(20), data, ["input", "1"], **OPTIONS)

    def predict(by_layer: Mapping[str, torch.Tensor]) -> float:
        return float(model.predict(statistics(by_layer, "moments", log="signed"))[0])

    whole = {**OPTIONS, "normalize": int(OPTIONS["normalize"]), "eps": np.float64(OPTIONS["eps"])}
    assert statistics(margins(network(20), data, **whole)).measured == statistics({"1": plain["1"]}).measured
    expected = model.predict_gap(network(20), data)
    assert predict(plain) == pytest.approx(expected, rel=1e-9)
    halves = margins(network(20), data, ["1"], **OPTIONS) | {"input": plain["input"]}
    assert predict({layer: halves[layer] for layer in ("input", "1")}) == pytest.approx(expected, rel=1e-9)
    others = [
        margins(network(20), data, ["input", "1"], **{**OPTIONS, "normalize": not OPTIONS.get("normalize", True)}),
        margins(network(20), data, ["input", "1"], subspaces={"input": torch.eye(4)[:, :2].double()}, **OPTIONS),
        plain | {"1": distances(network(20), data, ["1"])["1"]},
        kv_margins(network(20), data, ["input", "1"]),
    ]
    for other in others:
        with pytest.raises(ValueError, match=r"features were measured with .*, but those of the fit with nearest"):
            predict(other)
        predict({layer: 2 * m for layer, m in other.items()})  # of these nothing is known


def test_that_misuse_of_the_model_is_explained(tmp_path: Path) -> None:
    x, y = problem(10)
    with pytest.raises(RuntimeError, match="not fitted"):
        GapModel().predict(x)
    with pytest.raises(RuntimeError, match="not fitted"):
        GapModel().save(tmp_path / "gap.npz")
    with pytest.raises(ValueError, match="need at least 5 networks, got 4; take"):
        GapModel().fit(x[:4], y[:4])
    with pytest.raises(ValueError, match=r"2 independent .* 4 networks, got 3 \(5 suffice for all 3 features\); take"):
        GapModel().fit(x[:3], y[:3])
    with pytest.raises(ValueError, match="all gaps are equal"):
        GapModel().fit(x, np.ones(10))
    with pytest.raises(ValueError, match="no feature varies between networks"):
        GapModel().fit(np.ones((10, 2)), y)
    with pytest.raises(ValueError, match="as many gaps and groups"):
        GapModel().fit(x, y[:9])
    with pytest.raises(ValueError, match="finite"):
        GapModel().fit(x, np.full(10, np.nan))
    with pytest.raises(ValueError, match="groups must be integers or strings"):
        GapModel().fit(x, y, groups=[None] * 10)
    with pytest.raises(ValueError, match="two folds and two groups"):
        GapModel().fit(x, y, groups=[1] * 10).k_fold_r2()
    with pytest.raises(ValueError, match="list of the statistics of one network at least"):
        GapModel().fit(Statistics(("depth",), np.ones(1)), [0.1])  # type: ignore[arg-type]
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="features must be finite"):
            GapModel().fit(x, y).predict(np.full((1, 3), bad))
    with pytest.raises(ValueError, match="not those that the model was fitted to"):
        GapModel().fit(x, y).predict(x[:, :2])
    with pytest.raises(ValueError, match=r"matrix \(networks, features\), got shape \(10,\)"):
        GapModel().fit(x[:, 0], y)
    with pytest.raises(ValueError, match="list of the statistics of one network at least"):
        GapModel().fit([], [])
    for groups, samples in (([1] * 10, 100), (range(10), 1)):
        with pytest.raises(ValueError, match="bootstrap needs two groups and samples"):
            GapModel().fit(x, y, groups=groups).coefficients(method="bootstrap", samples=samples)
    m = {"a": normal(5)}, {"b": normal(5)}
    with pytest.raises(ValueError, match="features of network 1"):
        GapModel().fit([statistics(part) for part in m], [1, 2])
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        GapModel().fit(x, y).save(tmp_path / "gap.json")
    np.savez(tmp_path / "other.npz", x=x)
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match="holds no gap model"):
            GapModel.load(tmp_path / name)
    with pytest.raises(ValueError, match="layers must be a list of names, got the string 'input'"):
        GapModel("input")
    with pytest.raises(ValueError, match="kind must be"):
        GapModel(kind="quartile")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="log must be"):
        GapModel(log="keep")  # type: ignore[arg-type]
    fitted().save(tmp_path / "newer.npz")
    with np.load(tmp_path / "newer.npz") as file:
        settings = json.dumps({**json.loads(str(file["settings"])), "format": 2})
        np.savez(tmp_path / "newer.npz", **{**file, "settings": settings})
    with pytest.raises(ValueError, match="another version of rsam"):
        GapModel.load(tmp_path / "newer.npz")
    with pytest.raises(ValueError, match="method must be"):
        GapModel().fit(x, y).coefficients(method="jackknife")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="confidence"):
        GapModel().fit(x, y).coefficients(95)
