"""Judge the claims C4, C5 and C6 by rules that were written before the runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import scipy.stats

from benchmarks.report.intervals import Comparison, compare
from benchmarks.run import Row
from benchmarks.runs.measurement import MEASURES
from benchmarks.studies.comparison.contest import Entry, find
from benchmarks.studies.comparison.tables import measured
from benchmarks.studies.images.contestants import CHECK, CHECKED

__all__ = [
    "CURVATURES",
    "GEOMETRIES",
    "MODERATE",
    "NEGLIGIBLE",
    "PENALTIES",
    "RULES",
    "Verdict",
    "accuracy",
    "c4",
    "c5",
    "c6",
    "differences",
    "gap",
    "positive",
    "rank_correlation",
    "ratios",
    "statement",
    "within_methods",
]

NEGLIGIBLE = 0.2
"""Percentage points of accuracy below which a difference is negligible."""
MODERATE = 0.3
"""Rank correlation that a rule asks for."""
_DIGITS = 9
"""Decimals to which gaps are rounded, so that equal ones are ties whatever rounding made of them."""
CURVATURES = tuple(name for name in MEASURES if name != "distance")
PENALTIES = {"gradient_norm": "gradient_norm", "hessian_trace": "trace"}
"""Each penalty, and the measure that it penalises."""
GEOMETRIES = {"rsam": "spheres", "rsam_stiefel": "Stiefel"}

RULES = {
    "C4": f"""\
Curvature around the weights correlates with generalisation. For each curvature measure (gradient norm, Hessian trace,
top eigenvalue, m-sharpness), case and seed: Spearman's rank correlation with the gap (train minus test accuracy) over
all networks of that seed, the mean over the main cases giving one number a seed. Student's intervals over the seeds,
simultaneous for the four measures. *Holds* if for at least three of them the mean is at least {MODERATE} and the
interval above 0. *Does not hold* if for at least three of them the interval is below {MODERATE}. *Undecided*
otherwise. Networks that diverged are left out, as is the peer's SAM.""",
    "C5": f"""\
Training with a Hessian-trace or gradient-norm penalty lowers curvature a lot, yet generalises worse than SAM. For each
of the two penalties and each seed, means over the main cases of (a) the binary logarithm of what it penalises, over the
same of SGD; (b) test accuracy minus SAM's. Student's intervals over the seeds, simultaneous for all four. *Holds* if
for both penalties (a) is below -1 (at least halved) and (b) below 0. Else it *does not hold* if for one of them (a) is
above -1, or (b) above -{NEGLIGIBLE} points. *Undecided* otherwise. For (a) a seed with a network that diverged is left
out.""",
    "C6": f"""\
Riemannian SAM does at least a little better on test data than SAM. For kernels on spheres and on Stiefel manifolds,
with vector transport, and each seed: the mean over the main cases of test accuracy minus SAM's. Student's intervals
over the seeds, simultaneous for the two. *Holds* if one of them is above 0. Else it *does not hold* if both are below
{NEGLIGIBLE} points. *Undecided* otherwise.""",
}


@dataclass(frozen=True)
class Verdict:
    """Verdict of the runs on a claim.

    Attributes
    ----------
    claim : str
        "C4" and so on.
    outcome : {"holds", "does not hold", "undecided"}
        By the rule.
    evidence : list of (str, Comparison)
        What the rule looks at, with what it is.
    """

    claim: str
    outcome: str
    evidence: list[tuple[str, Comparison]]


def statement(claim: str) -> str:
    """Quote the sentence that a claim says, without the rule by which it is judged."""
    return " ".join(RULES[claim].split()).split(". ")[0] + "."


def _per_seed(cases: Sequence[Sequence[Entry]], value: Callable[[Sequence[Entry]], Sequence[float]]) -> list[float]:
    """Average over the cases one number per seed."""
    return [fmean(of_seed) for of_seed in zip(*map(value, cases), strict=True)]


def accuracy(row: Row) -> float:
    """Look up test accuracy in per cent."""
    return 100 * row.scores["accuracy"]


def gap(row: Row) -> float:
    """Take the generalisation gap: accuracy on the training labels as trained on, minus test accuracy."""
    return row.scores["train_accuracy"] - row.scores["accuracy"]


def differences(entry: Entry, reference: Entry) -> list[float]:
    """Subtract the test accuracy of another entry, seed by seed, in percentage points."""
    return [accuracy(a) - accuracy(b) for a, b in zip(entry.rows, reference.rows, strict=True)]


def _minus_sam(entries: Sequence[Entry], method: str) -> list[float]:
    return differences(find(entries, method), find(entries, CHECKED))


def positive(row: Row, measure: str) -> float:
    """Look up a measure that should be positive; a trace that is not, by chance, counts as its standard error."""
    value = measured(row, measure)
    floor = measured(row, "trace_error") if measure == "trace" else 0.0
    return max(floor, 1e-12) if value <= 0 else value


def ratios(rows: Sequence[Row], others: Sequence[Row], measure: str) -> list[float]:
    """Divide a measure by that of other networks, seed by seed."""
    return [positive(a, measure) / positive(b, measure) for a, b in zip(rows, others, strict=True)]


def c6(cases: Sequence[Sequence[Entry]]) -> Verdict:
    """Judge whether RSAM does better than SAM.

    Parameters
    ----------
    cases : sequence of sequences of Entry
        Entries of each main case.
    """
    evidence = [
        (
            f"test accuracy, RSAM on {label} minus SAM, points",
            compare(_per_seed(cases, lambda e, m=method: _minus_sam(e, m)), len(GEOMETRIES)),  # type: ignore[misc]
        )
        for method, label in GEOMETRIES.items()
    ]
    intervals = [c.simultaneous for _, c in evidence]
    outcome = _outcome(any(i.low > 0 for i in intervals), all(i.high < NEGLIGIBLE for i in intervals))
    return Verdict("C6", outcome, evidence)


def c5(cases: Sequence[Sequence[Entry]]) -> Verdict:
    """Judge whether penalties lower curvature, yet generalise worse than SAM.

    Parameters
    ----------
    cases : sequence of sequences of Entry
        Entries of each main case.
    """
    number = 2 * len(PENALTIES)
    evidence, holds, fails = [], [], []
    for method, measure in PENALTIES.items():

        def lowered(entries: Sequence[Entry], method: str = method, measure: str = measure) -> list[float]:
            return [float(np.log2(r)) for r in ratios(find(entries, method).rows, find(entries, "sgd").rows, measure)]

        known = [value for value in _per_seed(cases, lowered) if not math.isnan(value)]
        curvature = compare(known or [math.nan], number)
        accuracy = compare(_per_seed(cases, lambda e, m=method: _minus_sam(e, m)), number)  # type: ignore[misc]
        evidence.append((f"log2 of the {MEASURES[measure].label} with its penalty over SGD's", curvature))
        evidence.append((f"test accuracy, {MEASURES[measure].label} penalty minus SAM, points", accuracy))
        holds += [curvature.simultaneous.high < -1, accuracy.simultaneous.high < 0]
        fails += [curvature.simultaneous.low > -1, accuracy.simultaneous.low > -NEGLIGIBLE]
    return Verdict("C5", _outcome(all(holds), any(fails)), evidence)


def c4(cases: Sequence[Sequence[Entry]]) -> Verdict:
    """Judge whether curvature correlates with the gap.

    Parameters
    ----------
    cases : sequence of sequences of Entry
        Entries of each main case.
    """
    evidence = [
        (
            f"rank correlation of {MEASURES[measure].label} and gap",
            compare(_per_seed(cases, lambda e, m=measure: rank_correlation(e, m)), len(CURVATURES)),  # type: ignore[misc]
        )
        for measure in CURVATURES
    ]
    holds = [c.interval.mean >= MODERATE and c.simultaneous.low > 0 for _, c in evidence]
    fails = [c.simultaneous.high < MODERATE for _, c in evidence]
    return Verdict("C4", _outcome(sum(holds) >= 3, sum(fails) >= 3), evidence)


def rank_correlation(entries: Sequence[Entry], measure: str, target: Callable[[Row], float] = gap) -> list[float]:
    """Compute Spearman's correlation of a curvature measure with the gap, over the networks of each seed."""
    of_seeds = zip(*(entry.rows for entry in entries if entry.name != CHECK), strict=True)
    coefficients = []
    for rows in of_seeds:
        known = [row for row in rows if not math.isnan(measured(row, measure))]
        pairs = [measured(row, measure) for row in known], [round(target(row), _DIGITS) for row in known]
        coefficients.append(float(scipy.stats.spearmanr(*pairs).statistic) if len(known) > 2 else math.nan)
    return coefficients


def within_methods(cases: Sequence[Sequence[Entry]], measure: str, resamples: int = 2000) -> tuple[float, float]:
    """Average Spearman's correlation over the seeds of a method, over methods and cases, and test it.

    The test permutes seeds, the same way for all methods, since networks of a seed share their data.

    Returns
    -------
    tuple of float
        Mean correlation, and two-sided p-value.
    """
    entries = [entry for case in cases for entry in case if entry.name != CHECK]
    entries = [entry for entry in entries if not any(row.diverged for row in entry.rows)]
    if not entries:
        return math.nan, math.nan
    curvature = np.array([[measured(row, measure) for row in entry.rows] for entry in entries])
    gaps = np.array([[round(gap(row), _DIGITS) for row in entry.rows] for entry in entries])
    # ranks, centred and scaled, so that Spearman's coefficient of each entry is a sum of products
    scaled = [scipy.stats.zscore(scipy.stats.rankdata(values, axis=1), axis=1) for values in (curvature, gaps)]
    left, right = (np.nan_to_num(values) for values in scaled)  # where all are equal nothing correlates

    def statistic(order: np.ndarray) -> float:
        return float((left[:, order.astype(int)] * right).mean())

    test = scipy.stats.permutation_test(
        (np.arange(left.shape[1]),),
        statistic,
        permutation_type="pairings",
        n_resamples=resamples,
        rng=np.random.default_rng(0),
    )
    return float(test.statistic), float(test.pvalue)


def _outcome(holds: bool, fails: bool) -> str:
    return "holds" if holds else "does not hold" if fails else "undecided"
