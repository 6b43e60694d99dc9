"""That rank correlations equal those of scipy and of the papers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from rsam.margins import granulated_tau, kendall_tau
from tests.margins.problems import normal


def test_that_kendalls_tau_is_that_of_scipy() -> None:
    x, y = normal(30).numpy().round(1), normal(30, seed=1).numpy()
    assert kendall_tau(x, y) == scipy.stats.kendalltau(x, y).statistic


def test_that_granulated_tau_is_a_mean_over_cells_and_axes() -> None:
    # a grid of two learning rates and three widths; by hand:
    rates, widths = ["low"] * 3 + ["high"] * 3, [8, 16, 32] * 2
    measure, gaps = [1, 2, 3, 2, 1, 4], [1, 2, 3, 4, 5, 6]
    # rate: one pair for each width, with signs +, - and +; width: 1 in one cell, (-1 + 1 + 1) / 3 in the other
    tau = granulated_tau(measure, gaps, {"rate": rates, "width": widths})
    assert tau.by_axis == {"rate": pytest.approx(1 / 3), "width": pytest.approx((1 + 1 / 3) / 2)}
    assert tau.mean == pytest.approx(0.5)
    assert (tau.worst_axis, tau.worst) == ("rate", tau.by_axis["rate"])


class Column(list):
    """List whose numbers are found by an index of their own, as a column of a table that was sorted."""

    def __getitem__(self, i):
        return super().__getitem__(-1 - i)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, Column])
def test_that_columns_of_hyperparameters_are_read_in_their_order(kind) -> None:
    values = {"rate": [1, 1, 2, 2, 3, 3], "width": [8, 16, 8, 16, 8, 32]}
    measure, gaps = normal(6).tolist(), normal(6, seed=1).tolist()
    expected = granulated_tau(measure, gaps, values)
    assert granulated_tau(measure, gaps, {name: kind(column) for name, column in values.items()}) == expected


def test_that_a_cell_is_kendalls_tau_without_ties() -> None:
    x, y = normal(8).tolist(), normal(8, seed=1).tolist()
    assert granulated_tau(x, y, {"width": range(8)}).mean == pytest.approx(kendall_tau(x, y))


def test_that_seeds_of_one_configuration_are_not_compared() -> None:
    tau = granulated_tau([1, 2, 3, 4], [2, 1, 4, 3], {"rate": [0.1, 0.1, 0.2, 0.2]})
    assert tau.mean == 1  # pairs with different rates agree; pairs with equal rates do not count


def test_that_what_has_no_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="all equal"):
        kendall_tau([1, 1], [1, 2])
    with pytest.raises(ValueError, match="as many numbers"):
        kendall_tau([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="finite"):
        kendall_tau([1, float("nan")], [1, 2])
    with pytest.raises(ValueError, match="no two networks differ in hyper-parameter 'rate'"):
        granulated_tau([1, 2], [1, 2], {"rate": [1, 2], "width": [8, 16]})
    with pytest.raises(ValueError, match="hyperparameters is empty"):
        granulated_tau([1, 2], [1, 2], {})
    with pytest.raises(ValueError, match="'rate' has 1 values for 2"):
        granulated_tau([1, 2], [1, 2], {"rate": [1]})
    with pytest.raises(ValueError, match="'rate' of network 1 is NaN"):
        granulated_tau([1, 2], [1, 2], {"rate": [1, float("nan")]})
    with pytest.raises(ValueError, match="'widths' of network 0 is a list; give numbers, strings or tuples"):
        granulated_tau([1, 2], [1, 2], {"widths": [[8, 8], [16, 16]]})
