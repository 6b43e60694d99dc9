"""Rules of the study's verdicts, written before its networks were trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.intervals import Interval, t_interval
from benchmarks.studies.cheap.noninferiority import NonInferiority, compare_to

__all__ = ["MARGIN", "MOST_EVALUATIONS", "RULES", "Verdict", "judge", "recommended"]

#: Points of test accuracy that a cheap ascent may lose, and gradient evaluations per step that it may take.
MARGIN, MOST_EVALUATIONS = 0.3, 1.15

RULES = f"""\
**Settings.** Learning rates and weight decay of a case are those that the study `fair` chose there for RSAM on spheres,
and for SAM on plain weights. rho alone is tuned anew, for each variant alike, on validation data. The accuracy of a
network that diverged counts as 10 %; while tuning, as none.

**Choice.** Candidates are the variants on spheres that are planned to take at most {MOST_EVALUATIONS} gradient
evaluations per step. Chosen is the one with the best validation accuracy minus that of RSAM (an ascent from the whole
batch in every step), mean over the cases, on pilot seeds of which none was tuned with. The deviation of its differences
there plans the final seeds: the fewest with which the test below succeeds with a probability of 0.8 if there is no
difference, within the bounds of the plan.

**Verdict.** For each final seed, the chosen variant's test accuracy minus RSAM's, mean over the cases; Student's
one-sided test at 5 % against a loss of {MARGIN} points.
- *Nothing to keep* if the 95 % interval of RSAM minus no ascent, at equal epochs and settings, over the same seeds, is
  not above 0.
- Else *holds* if the lower bound is above −{MARGIN}, and the gradient evaluations per step, as counted, are at most
  {MOST_EVALUATIONS} in every case; *does not hold* if the upper bound is below −{MARGIN}, or more evaluations were
  counted; *undecided* otherwise.

**rho.** For an ascent from a quarter and from an eighth, rho is taken from RSAM, divided by the cosine between the
gradients of the part and of the whole batch, so that the component along the whole gradient is as long. It *transfers*
if test accuracy minus that with rho tuned, mean over cases and parts for each seed, has a lower bound above −{MARGIN};
it *does not* if the upper bound is below −{MARGIN}; else this is *undecided*.

While one of the cases is missing there is no verdict, whatever the others say.

**Recommended** is the chosen variant if the verdict is that it holds; no ascent if there is nothing to keep; else RSAM.

All else has 95 % intervals that are not corrected, and carries no verdict. Intervals are over seeds, each with training
examples of its own; they do not cover what other test examples or cases would change, nor another choice of rho.
"""


@dataclass(frozen=True)
class Verdict:
    """Verdict on the chosen variant.

    Attributes
    ----------
    outcome : {"holds", "does not hold", "undecided", "nothing to keep"}
        By the rules.
    test : NonInferiority
        The chosen variant against RSAM.
    gain : Interval
        RSAM minus no ascent.
    evaluations : float
        Gradient evaluations per step of the chosen variant, in the case where they are most.
    """

    outcome: str
    test: NonInferiority
    gain: Interval
    evaluations: float


def judge(chosen: Sequence[float], whole: Sequence[float], evaluations: Sequence[float]) -> Verdict:
    """Judge the chosen variant.

    Parameters
    ----------
    chosen : sequence of float
        Its test accuracy minus RSAM's, one per seed, in points.
    whole : sequence of float
        RSAM's minus that without an ascent.
    evaluations : sequence of float
        Its gradient evaluations per step, one per case.
    """
    test, gain, most = compare_to(chosen, MARGIN), t_interval(whole), max(evaluations)
    outcome = test.outcome
    if not gain.low > 0:
        outcome = "nothing to keep"
    elif most > MOST_EVALUATIONS:
        outcome = "does not hold"
    return Verdict(outcome, test, gain, most)


def recommended(outcome: str) -> str:
    """Name what is recommended: "chosen", "base" or "whole"."""
    return {"holds": "chosen", "nothing to keep": "base"}.get(outcome, "whole")
