"""Make numbers with given intervals, and read the thresholds from the texts of rules."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import scipy.stats

from benchmarks.report.intervals import Comparison
from benchmarks.studies.comparison.cases import Case
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.images.claims import RULES
from tests.benchmarks.entries import made_case, made_entry

SEEDS = 10
#: Five methods of a case, without the peer's.
FIVE = ("sgd", "adamw", "sam", "asam", "rsam")
SLACK = 0.01


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def text_of(claim: str) -> str:
    return " ".join(RULES[claim].split())


def number(claim: str, pattern: str) -> float:
    """Read a threshold from the text of a rule."""
    (threshold,) = set(re.findall(pattern, text_of(claim)))
    return float(threshold)


def with_interval(low: float, high: float, comparisons: int, seed: int = 0) -> np.ndarray:
    """Make values, one per seed, with this Bonferroni interval, by scipy."""
    values = generator(seed).normal(size=SEEDS)
    reference = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / comparisons)
    return (low + high) / 2 + (values - values.mean()) * (high - low) / (reference.high - reference.low)


def assert_is_test_of(comparison: Comparison, values: Sequence[float], comparisons: int) -> None:
    """Assert that a comparison equals scipy's test of values against 0, after Bonferroni."""
    test = scipy.stats.ttest_1samp(values, 0)
    for interval, level in ((comparison.interval, 0.95), (comparison.simultaneous, 1 - 0.05 / comparisons)):
        reference = test.confidence_interval(level)
        # converting accuracies to fractions and back to points changes a few units in the 16th digit of 100
        assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), rel=1e-9, abs=1e-9)
        assert interval.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert comparison.p == pytest.approx(min(1, comparisons * test.pvalue), rel=1e-6)


def halves(values: np.ndarray, size: float = 3.0) -> list[np.ndarray]:
    """Make the values of two cases with this mean, each much noisier than the mean."""
    noise = size * generator(99).normal(size=len(values))
    return [values + noise, values - noise]


A_LITTLE = number("C6", r"if both are below ([\d.]+) points")
HALVED = number("C5", r"\(a\) is below (-\d+) ")
NEARLY = number("C5", r"\(b\) above (-[\d.]+) points")


def by_coefficient() -> dict[int, tuple[int, ...]]:
    """Return orders of five by their Spearman coefficient with 0, ..., 4 in tenths, by the classic formula."""
    orders = {}
    for order in itertools.permutations(range(5)):
        squares = sum((a - b) ** 2 for a, b in enumerate(order))
        orders.setdefault(round(10 * (1 - 6 * squares / (5 * 24))), order)
    return orders


ORDERS = by_coefficient()
ORDER = tuple(generator(3).permutation(5))
"""Networks by gap, so that their place in the case says nothing."""


def entries_of_c4(tenths: Mapping[str, Sequence[int]], case: Case | None = None, peer: bool = True) -> list[Entry]:
    """Make entries of five methods with these rank correlations of a measure and the gap, in tenths, per seed.

    The peer's entry, which should not count, would turn any correlation towards -1.
    """
    methods = (*FIVE, "peer_sam") if peer else FIVE
    case = case or made_case(methods)
    seeds = len(next(iter(tenths.values())))
    entries = []
    for i, method in enumerate(methods):
        is_peer = method == "peer_sam"
        # ranks on an exponential scale, for which Pearson's coefficient differs
        curvature = {
            name: [1e-9 if is_peer else math.exp(2 * ORDERS[t][ORDER[i]]) for t in of_seeds]
            for name, of_seeds in tenths.items()
        }
        gap = 0.9 if is_peer else 0.01 * (1 + ORDER[i])
        train = [0.95 - 0.01 * seed for seed in range(seeds)]
        entries.append(made_entry(case, method, [t - gap for t in train], curvature, train))
    return entries


COUNTS = number("C4", r"mean is at least ([\d.]+) and")
