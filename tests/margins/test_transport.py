"""That k-variance is an optimal transport cost, and normalises margins as by its authors."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from rsam import NotFinite
from rsam.margins import k_variance, kv_margins, margins
from tests.margins.problems import classes, normal


def test_that_k_variance_of_all_examples_is_the_best_matching() -> None:
    x = normal(8, 3)

    def matching(first: tuple[int, ...]) -> float:
        second = [i for i in range(8) if i not in first]
        costs = torch.cdist(x[list(first)], x[second])
        return min(float(costs[range(4), list(p)].mean()) for p in itertools.permutations(range(4)))

    every = [matching(first) for first in itertools.combinations(range(8), 4)]
    assert min(every) <= k_variance(x) <= max(every)
    # over many splits, within four standard errors of the mean over all splits
    spread = torch.tensor(every).std()
    assert k_variance(x, repeats=400) == pytest.approx(sum(every) / len(every), abs=float(4 * spread / 20))


def test_that_k_variance_in_one_dimension_is_the_difference_of_sorted_samples() -> None:
    # for one pair of samples of a uniform distribution: E |x - y| = 1/3
    x = torch.rand(3000, 1, generator=torch.Generator().manual_seed(0))
    actual = k_variance(x, 1, repeats=2000)
    assert actual == pytest.approx(1 / 3, abs=4 * (1 / 18) ** 0.5 / 2000**0.5)  # the variance of |x - y| is 1 / 18
    assert k_variance(x[:, 0], 1, repeats=2) == k_variance(x, 1, repeats=2)  # an example may be a number


def test_that_k_variance_falls_with_clustering() -> None:
    # around two centres the cost of a matching falls as 1 / sqrt(k), otherwise as 1 / k^(1/d)
    spread, clustered = normal(200, 20), normal(2, 20, seed=1).repeat(100, 1) + 0.01 * normal(200, 20, seed=2)
    assert k_variance(clustered, repeats=3) < 0.3 * k_variance(spread, repeats=3)


@pytest.mark.parametrize("k", [None, 2])
def test_that_kv_margins_are_normalised_as_by_their_authors(k: int | None) -> None:
    model, (x, y) = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3)).double(), (normal(40, 3), classes(40))
    raw = margins(model, (x, y), ["1", "output"], normalize=False)
    norms = raw["output"] / raw["1"]  # norms of the gradients
    h = model[:2](x).detach()
    scale = {"kv": 0.0, "gn": 0.0}
    for c in range(3):
        variance = k_variance(h[y == c], k, repeats=2, seed=5)
        share = float((y == c).sum()) / 40
        scale["gn"] += share * variance
        scale["kv"] += share * variance * float(norms[y == c].max())
    actual = kv_margins(model, (x, y), ["1"], k=k, repeats=2, seed=5)["1"]
    torch.testing.assert_close(actual, raw["output"] / scale["kv"])
    actual = kv_margins(model, (x, y), ["1"], gradient_normalized=True, k=k, repeats=2, seed=5)["1"]
    torch.testing.assert_close(actual, raw["1"] / scale["gn"])


def test_that_classes_with_too_few_examples_are_named() -> None:
    model, x = nn.Linear(2, 2), torch.randn(5, 2)
    with pytest.raises(ValueError, match="class 1 has 1 examples"):
        kv_margins(model, (x, torch.tensor([0, 0, 0, 0, 1])), ["input"])
    with pytest.raises(ValueError, match="class 0 has 3 examples, too few for two samples of 2"):
        kv_margins(model, (x, torch.tensor([1, 0, 0, 0, 1])), ["input"], k=2)
    with pytest.raises(ValueError, match="k must be from 1 to half"):
        k_variance(x, 3)


class Unbounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0


def test_that_what_has_no_variance_or_gradient_is_refused() -> None:
    model, x, y = nn.Linear(2, 2), torch.randn(6, 2), torch.arange(6) % 2
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        k_variance(x, repeats=0)
    with pytest.raises(NotFinite, match="features are not finite"):
        k_variance(x / 0)
    with pytest.raises(ValueError, match="'output' has no gradient"):
        kv_margins(model, (x, y), ["output"])
    with pytest.raises(NotFinite, match=r"'input' are not finite.* same representation"):
        kv_margins(model, (torch.ones(6, 2), y), ["input"])
    rounded = torch.ones(6, 2) * (1 + torch.arange(6)[:, None] // 2 * torch.finfo(torch.float32).eps)
    assert k_variance(rounded) == 0
    with pytest.raises(NotFinite, match="same representation"):  # but for their rounding
        kv_margins(model, (rounded, y), ["input"])
    with pytest.raises(NotFinite, match="'input' are not finite: logits are not"):
        kv_margins(Unbounded(), (x, y), ["input"])
