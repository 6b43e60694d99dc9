"""That statistics are those of their names."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from rsam import NotFinite
from rsam.margins import Statistics, statistics
from tests.margins.problems import normal


def test_that_fences_are_those_of_tukey() -> None:
    m = {"a": normal(101), "b": normal(50, seed=1)}
    actual = statistics(m)
    assert actual.names[5:] == ("b: Q1", "b: median", "b: Q3", "b: lower fence", "b: upper fence")
    for i, margin in enumerate(m.values()):
        q1, q2, q3 = np.percentile(margin, [25, 50, 75])
        expected = [q1, q2, q3, q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)]
        np.testing.assert_allclose(actual.values[5 * i : 5 * i + 5], expected, rtol=1e-12)


def test_that_moments_are_those_of_scipy() -> None:
    m = normal(60).exp()
    expected = [m.mean(), m.std(correction=0), scipy.stats.skew(m), scipy.stats.kurtosis(m, fisher=False)]
    np.testing.assert_allclose(statistics(m, "moments").values, expected, rtol=1e-12)


def test_that_logarithms_drop_or_keep_wrong_classifications() -> None:
    m = torch.tensor([-3.0, 1.0, torch.e, torch.e**2], dtype=torch.float64)
    dropped = statistics(m, "quartiles", log="drop")
    assert dropped.names == ("margins: log Q1", "margins: log median", "margins: log Q3")
    np.testing.assert_allclose(dropped.values, [0.5, 1.0, 1.5])
    signed = statistics(m, "moments", log="signed")
    assert signed.values[0] == pytest.approx(np.mean([-np.log(4), np.log(2), np.log1p(np.e), np.log1p(np.e**2)]))


def test_that_vectors_concatenate_by_name() -> None:
    m = normal(20).exp()
    both = statistics(m, "quartiles") + statistics(m, "quartiles", log="drop")
    assert len(both) == len(both.values) == 6 and both.names[3] == "margins: log Q1"


def test_that_what_has_no_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="no margin of layer 'a' is positive"):
        statistics({"a": -torch.ones(3)}, log="drop")
    with pytest.raises(ValueError, match="all margins of layer 'a' are equal"):
        statistics({"a": torch.full((3,), 0.1)}, "moments")
    with pytest.raises(NotFinite, match="'a'"):
        statistics({"a": torch.tensor([1.0, torch.inf])})
    with pytest.raises(ValueError, match=r"layer 'a' must be a tensor \(examples,\)"):
        statistics({"a": torch.ones(2, 2)})
    for bad, kind in ({"a": np.ones(3)}, "ndarray"), ([1.0, 2.0], "list"):
        with pytest.raises(TypeError, match=rf"must be a tensor \(examples,\), got {kind}"):
            statistics(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kind must be"):
        statistics(torch.ones(2), "quantiles")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="log must be"):
        statistics(torch.ones(2), log=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty"):
        statistics({})
    with pytest.raises(ValueError, match=r"one number for each of 1 names, got shape \(2,\)"):
        Statistics(("depth",), np.array([4.0, 8.0]))
