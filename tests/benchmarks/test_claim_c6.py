"""That C6 follows from the numbers as its rule says, with scipy's intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from benchmarks.studies.comparison.contest import Entry, find
from benchmarks.studies.images.claims import c6
from benchmarks.studies.images.contestants import CONTESTANTS
from tests.benchmarks.entries import made_case, made_entry
from tests.benchmarks.verdicts import A_LITTLE, SEEDS, SLACK, assert_is_test_of, generator, halves, with_interval


def cases_of_c6(
    spheres: np.ndarray, stiefel: np.ndarray, sam: float = 80.0, diverged: Sequence[int] = ()
) -> list[list[Entry]]:
    """Make two cases with these mean differences to SAM; SAM itself varies by seed and case."""
    cases = []
    for i, (on_spheres, on_stiefel) in enumerate(zip(halves(spheres), halves(stiefel), strict=True)):
        case = made_case(("rsam", "sam", "rsam_stiefel", "peer_sam"), name=f"case{i}")
        base = sam + generator(7 + i).normal(scale=2, size=SEEDS)
        cases.append(
            [
                made_entry(case, "rsam", (base + on_spheres) / 100, diverged=diverged),
                made_entry(case, "sam", base / 100),
                made_entry(case, "rsam_stiefel", (base + on_stiefel) / 100),
                made_entry(case, "peer_sam", (base + 9) / 100),
            ]
        )
    return cases


UNDECIDED = (-2.0, 2.0)


@pytest.mark.parametrize(
    ("spheres", "stiefel", "outcome"),
    [
        ((SLACK, 1.0), UNDECIDED, "holds"),
        (UNDECIDED, (SLACK, 1.0), "holds"),
        ((SLACK, 1.0), (-5.0, -4.0), "holds"),
        ((-SLACK, 1.0), (-SLACK, 1.0), "undecided"),
        ((-1.0, A_LITTLE - SLACK), (-1.0, A_LITTLE - SLACK), "does not hold"),
        ((-9.0, -8.0), (-9.0, -8.0), "does not hold"),
        ((-1.0, A_LITTLE + SLACK), (-1.0, A_LITTLE - SLACK), "undecided"),
        ((-1.0, A_LITTLE - SLACK), (-1.0, A_LITTLE + SLACK), "undecided"),
        (UNDECIDED, UNDECIDED, "undecided"),
    ],
)
def test_that_c6_follows_its_rule_at_its_edges(spheres, stiefel, outcome) -> None:
    verdict = c6(cases_of_c6(with_interval(*spheres, 2), with_interval(*stiefel, 2, seed=1)))
    assert (verdict.claim, verdict.outcome) == ("C6", outcome)


def test_that_c6_rests_on_paired_tests_of_the_mean_over_cases() -> None:
    cases = cases_of_c6(with_interval(-0.1, 0.5, 2), with_interval(-0.5, 0.2, 2, seed=1))
    evidence = c6(cases).evidence
    assert [("spheres" in what, "Stiefel" in what) for what, _ in evidence] == [(True, False), (False, True)]
    for (_, comparison), method in zip(evidence, ("rsam", "rsam_stiefel"), strict=True):
        mean = {
            name: np.mean([[100 * r.scores["accuracy"] for r in find(case, name).rows] for case in cases], axis=0)
            for name in (method, "sam")
        }
        assert_is_test_of(comparison, mean[method] - mean["sam"], 2)
        test = scipy.stats.ttest_rel(mean[method], mean["sam"])
        interval = test.confidence_interval(0.975)
        assert comparison.p == pytest.approx(min(1, 2 * test.pvalue), rel=1e-6)
        assert (comparison.simultaneous.low, comparison.simultaneous.high) == pytest.approx(
            (interval.low, interval.high), abs=1e-9
        )


def test_that_c6_pairs_seeds() -> None:
    cases = cases_of_c6(with_interval(0.1, 0.3, 2), with_interval(0.1, 0.3, 2, seed=1))
    shuffled = [[replace(e, rows=e.rows[1:] + e.rows[:1]) if i == 1 else e for i, e in enumerate(c)] for c in cases]
    for (_, paired), (_, unpaired) in zip(c6(cases).evidence, c6(shuffled).evidence, strict=True):
        assert unpaired.interval.mean == pytest.approx(paired.interval.mean)
        # SAM varies by several points from seed to seed, the differences by a tenth of a point
        assert unpaired.interval.half_width > 5 * paired.interval.half_width
        assert unpaired.p > paired.p


def test_that_c6_looks_at_the_epochs_of_the_case_only() -> None:
    cases = cases_of_c6(with_interval(0.1, 0.3, 2), with_interval(0.1, 0.3, 2, seed=1))
    longer = replace(CONTESTANTS["rsam"], name="rsam, for longer", passes=2.0)
    others = [made_entry(case[0].case, longer, [0.1] * SEEDS) for case in cases]
    again = [[other, *case] for case, other in zip(cases, others, strict=True)]
    assert c6(again) == c6(cases)


def test_that_c6_counts_networks_that_diverged_as_they_are() -> None:
    arguments = with_interval(0.1, 0.3, 2), with_interval(0.1, 0.3, 2, seed=1)
    assert c6(cases_of_c6(*arguments, diverged=[3])) == c6(cases_of_c6(*arguments))
