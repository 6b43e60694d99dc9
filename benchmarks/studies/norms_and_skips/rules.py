"""Rules of the study's verdicts, written before its networks were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.intervals import Comparison, compare
from benchmarks.studies.norms_and_skips.design import Factor

__all__ = ["FACTORS", "OUTCOME", "PRIMARY", "RULES", "Answer", "answer"]

#: Measure of curvature, and outcome; see :data:`~benchmarks.studies.norms_and_skips.effects.MEASURES`.
PRIMARY, OUTCOME = "unit_trace", "gap"
#: Of which verdicts are made; the interaction is shown beside them.
FACTORS: Mapping[Factor, str] = {"batch norm": "Batch norm", "skips": "Skip connections"}

RULES = """\
The primary measure of curvature is the trace of the Hessian in the filters, each in units of its own norm and free to
turn only: batch norm makes a filter's norm meaningless, and every other measure depends on it. The primary outcome is
the gap, training minus test accuracy. Both are taken at equal training loss: the lowest tenth that at least three
quarters of the seeds reach with all four variants of a depth, interpolated between the epochs at which networks were
measured. Seeds that do not reach it, or diverge, are left out there and counted.

For each seed, the effect of batch norm is the mean of its two differences (with skips and without), and that of skips
likewise; of curvature these are differences of logarithms. Intervals are Student's over the seeds, and cover
simultaneously with 95 % over two factors and all depths (Bonferroni).

- A factor *lowers curvature* if the interval lies below 0 at every depth, and *raises* it if above at every depth; else
  its effect is *undecided*, and what was found at each depth is said.
- *The gap follows* if that is decided and the interval of the effect on the gap lies on the same side of 0 at every
  depth; it *goes the other way* if on the other side at every depth; else this is *undecided*.

All other measures, and all measures at the end of training, are reported with intervals that are not corrected, and
carry no verdict. At the end the loss is lower for networks that learn faster, and curvature depends on that; at equal
loss these are earlier in training, at a higher learning rate. Only what holds both ways does not depend on the choice.
"""


@dataclass(frozen=True)
class Answer:
    """What was found about a factor.

    Attributes
    ----------
    curvature : {"lowers", "raises", "undecided"}
        What it does to curvature.
    gap : {"follows", "goes the other way", "undecided"}
        What the gap does.
    of_curvature, of_gap : dict of int to Comparison
        By depth.
    """

    curvature: str
    gap: str
    of_curvature: dict[int, Comparison]
    of_gap: dict[int, Comparison]


def answer(curvature: Mapping[int, Sequence[float]], gap: Mapping[int, Sequence[float]], depths: int) -> Answer:
    """Judge a factor by its effects on curvature and on the gap, one for each seed, by depth.

    Parameters
    ----------
    curvature, gap : mapping of int to sequence of float
        Effects at the depths of which these are known.
    depths : int
        Number of all depths; while one is lacking, what holds at the others does not hold at every depth.
    """
    comparisons = len(FACTORS) * depths
    of_curvature = {depth: compare(values, comparisons) for depth, values in curvature.items()}
    of_gap = {depth: compare(values, comparisons) for depth, values in gap.items()}
    every = len(curvature) == depths
    side, other = (_side(list(found.values())) if every else 0 for found in (of_curvature, of_gap))
    follows = {1: "follows", -1: "goes the other way", 0: "undecided"}[side * other]
    return Answer({-1: "lowers", 1: "raises", 0: "undecided"}[side], follows, of_curvature, of_gap)


def _side(found: Sequence[Comparison]) -> int:
    """Return on which side of 0 all intervals lie; 0 if on neither."""
    if found and all(c.simultaneous.high < 0 for c in found):  # not so where an interval is not known
        return -1
    return int(bool(found) and all(c.simultaneous.low > 0 for c in found))
