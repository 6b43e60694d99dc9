"""Rules of the study's verdicts, written before its final runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.stats

from benchmarks.report.intervals import Interval
from benchmarks.studies.comparison.sampling import EDGE, WIDER

__all__ = ["LOST", "NEGLIGIBLE", "RECOMMENDED", "RULES", "deciding", "judge"]

#: Points of accuracy below which a gain is no gain, and that no case may lose.
NEGLIGIBLE, LOST = 0.2, 0.3
#: Part of the cases that must gain.
GAINING = 3 / 4
#: The recommended variant, a key of :data:`~benchmarks.studies.fair.contestants.VARIANTS`, once it is chosen from the
#: runs on few images. From then on it is read on more.
RECOMMENDED = "rsam_angle"

RULES = f"""\
**Data.** Each seed draws its own training examples: 2,000 images of CIFAR-10 (re-encoded as JPEG) or Fashion-MNIST, or
4,000 signals of MNIST-1D, which are generated anew. All methods of a seed share them, with their wrong labels.
Validation is on 5,000 others, which are the same for all seeds, are never trained on and have right labels: with wrong
ones settings would be chosen less well. Test data are 5,000 examples of CIFAR-10 and of MNIST-1D, and 8,000 of
Fashion-MNIST: those 2,000 are left out that the ideas of this study were looked at on.

**Settings.** Every method is tuned on each case over one random sample of 32 settings from its ranges (learning rate,
weight decay, radius or weight, and for constrained kernels the factor of their learning rate), with one seed; the best
8 are tried with two more, and its three best settings by the mean over these three seeds are its settings. If on a
case a method's best setting lies in the last sixteenth of a range (in the logarithm), that range is widened there, by a
quarter of its length and a quarter as many settings, for all methods that share it, once; a method with more of these
ranges then tries more settings. The ends towards radius, weight and decay 0 are natural and stay: beyond the first two
lies a base that competes too. The settings that were tried stay, and all compete together. Final runs use other seeds,
each with its own training examples, and are tested once. A network that diverges is not chosen, and in a final run its
accuracy counts as 10 %.

**C6** (Riemannian SAM does at least a little better on test data than SAM). RSAM minus SAM, each the mean over its
three settings, by case and pooled over cases (the mean over cases of each seed), with Student's interval over seeds.
*Holds* for a variant if the pooled interval is above 0, at least three of four cases have a positive mean and none is
below -{LOST}. Else it *does not hold* if the pooled upper end is below {NEGLIGIBLE}. Else it is *undecided*, with the
number of seeds and of cases that would decide if means and deviations stayed as they are. Each of the three variants
is a line of its own; their pooled intervals cover simultaneously with 95 % (Bonferroni). Beside it, without a verdict:
the interval over the means of the cases, corrected alike, which holds what another draw of cases and settings would
change; the same minus ASAM and minus AdamW; and the difference at the best settings. (The same minus RSAM's own base
was added after the runs.)

**C5 for the Hessian trace** (a penalty on it generalises worse than SAM). The same rule for SAM minus the penalty. It
is one comparison, and its interval is not corrected.

While one of the four cases is missing nothing is decided, whatever the others say.

The verdicts speak of these cases. **The recommended setting** is the best one on clean CIFAR-10 of the variant with the
best validation accuracy, mean over its three settings and the cases. Its name is written down before it is read once on
10,000 images, beside SAM and both bases at theirs.
"""

assert (EDGE, WIDER) == (1 / 16, 1 / 4)  # as the rules say


def judge(pooled: Interval, means: Sequence[float], missing: int = 0) -> str:
    """Judge whether a method gains.

    Parameters
    ----------
    pooled : Interval
        Of the difference over all cases, corrected.
    means : sequence of float
        Mean difference of each case.
    missing : int
        Number of cases of which there are no results.

    Returns
    -------
    {"holds", "does not hold", "undecided"}
        By the rule; undecided where a case is missing, or where the interval of a single seed is not known.
    """
    if missing:
        return "undecided"
    if pooled.low > 0 and _agree(means):
        return "holds"
    return "does not hold" if pooled.high < NEGLIGIBLE else "undecided"


def _agree(means: Sequence[float]) -> bool:
    return sum(mean > 0 for mean in means) >= GAINING * len(means) and min(means) >= -LOST


def deciding(values: Sequence[float], means: Sequence[float], comparisons: int) -> int | None:
    """Count the values whose interval would decide, if their mean and deviation, and the cases, stayed as they are.

    Parameters
    ----------
    values : sequence of float
        Pooled differences of the seeds, or mean differences of the cases.
    means : sequence of float
        Mean difference of each case.
    comparisons : int
        Number of comparisons that intervals are corrected for.

    Returns
    -------
    int or None
        None if no number would: the difference is too large not to hold, and the cases disagree; or it would take more
        than ten thousand.
    """
    mean, deviation = float(sum(values) / len(values)), float(scipy.stats.tstd(values)) if len(values) > 1 else math.nan
    reach = max(mean if _agree(means) else -math.inf, NEGLIGIBLE - mean)
    counts = np.arange(2, 10_001)  # at once, since a call of ppf takes as long for one as for a thousand
    halves = scipy.stats.t.ppf(1 - 0.025 / comparisons, counts - 1) * deviation / np.sqrt(counts)
    return next(iter(counts[halves < reach].tolist()), None)
