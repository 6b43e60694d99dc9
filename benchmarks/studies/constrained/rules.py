"""Rules of the study's verdicts, written before its networks were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.intervals import Comparison, compare

__all__ = ["ASKED", "DECIDING", "KERNELS", "RECOMMENDED", "RHOS", "RULES", "TRIALS", "Answer", "answer"]

#: Fields of :class:`~benchmarks.run.Run` that make RSAM the cheap variant that the study ``cheap`` recommends, such as
#: ``part`` and ``every``, or another ``method``; none for whole RSAM, as long as it recommends nothing.
RECOMMENDED: Mapping[str, Any] = {}
#: Where kernels live, with their names in sentences; each is judged by itself.
KERNELS = {"spheres": "spheres", "stiefel": "Stiefel manifolds"}
#: Settings of each method that are tried in each case.
TRIALS = 16
#: Parts of wrong labels at which the ascent has to be better, and by how many points.
DECIDING, ASKED = (0.1, 0.2), 0.5
#: Radii that are tried on top of the best settings without an ascent.
RHOS = (0.025, 0.05, 0.1, 0.2)

RULES = f"""\
**Question.** Kernels on a sphere or a Stiefel manifold cannot decay. Is the ascent the regulariser that they lack,
or do the usual remedies do as well?

**Cases.** 2,000 training images of CIFAR-10 (JPEG) or Fashion-MNIST, drawn anew for each seed; 0, 10, 20 or 40 % of
their labels wrong; kernels on spheres or on Stiefel manifolds. Validation is on 5,000 other images with right
labels, so that early stopping and all choices are as good as they can be.

**Remedies.** RiemannianSGD may combine: decay of all that is not constrained (0.0005 to 0.1), label smoothing (none
or 0.05 to 0.2), dropout before the head (none or 0.1 to 0.5), early stopping, twice the epochs. RSAM may combine
its ascent with the same ones; twice the epochs only if it is cheap, since whole RSAM would then evaluate four times
as many gradients as its base, and RiemannianSGD with twice the epochs evaluates as many as RSAM. Dropout draws new
masks in the second pass of a step.

**Choice.** In each case both methods are tried at {TRIALS} settings. Learning rate (0.003 to 0.3), its factor for
kernels (1 to 10), decay and remedies are the same {TRIALS} combinations for both; RSAM has a rho with each
(0.0125 to 0.4, or twice that if it is cheap). All are trained with one seed and the best three with two more, each
network scored at the best of five epochs, a fifth of the training apart, on validation images. The two best settings
go on. A best setting at an end of a range is named.

**Final runs.** Eight other seeds. A network is stopped where its validation accuracy is best, and read on test
images there. The score of a seed is the mean of a method's two settings, which halves the luck of the choice; the
best one alone is shown beside it. The difference of a seed at a level of noise is the mean over the two data sets.

**Verdict.** For spheres and for Stiefel manifolds each: the ascent *is better than the best remedy* if at 10 and at
20 % wrong labels the interval of RSAM minus RiemannianSGD lies above {ASKED} points, and neither data set has a
negative mean there. It *is not* if at either level the interval lies below {ASKED}. Else it is *undecided*, and the
ascent is claimed to help only at equal settings: RSAM minus the same setting without its ascent, which is trained
too, where that interval lies above 0 at both levels. Intervals are Student's over the seeds, simultaneous over the
two manifolds (Bonferroni); both levels have to hold, which needs no correction. They cover other seeds with their
training images, and neither other data sets nor other draws of settings. 0 and 40 % are shown, without a verdict.

**Added after the runs**, without a verdict, since {TRIALS} settings cover RSAM more thinly than its base: they bind a
rho to each combination of remedies, so that RSAM may not try those that are best for RiemannianSGD with a rho that
suits them. At 10 and at 20 % wrong labels both final settings of RiemannianSGD are trained with an ascent on top,
everything else the same. Of {len(RHOS)} rho ({RHOS[0]} to {RHOS[-1]}, each twice the one before) each setting takes
the best on validation images with the three tuning seeds. It is trained with the eight final seeds, stopped early
and compared with the same setting without the ascent, as mean over both settings.
"""


@dataclass(frozen=True)
class Answer:
    """What was found on a manifold.

    Attributes
    ----------
    verdict : {"better", "not better", "undecided"}
        Against the best remedy.
    at_equal_settings : bool
        Whether the ascent helps at equal settings.
    against_remedy, against_base : dict of float to Comparison
        Differences by part of wrong labels.
    """

    verdict: str
    at_equal_settings: bool
    against_remedy: dict[float, Comparison]
    against_base: dict[float, Comparison]


def answer(
    against_remedy: Mapping[float, Mapping[str, Sequence[float]]],
    against_base: Mapping[float, Mapping[str, Sequence[float]]],
) -> Answer:
    """Judge a manifold by differences in points, one per seed, by part of wrong labels and data set.

    Parameters
    ----------
    against_remedy : mapping
        RSAM minus RiemannianSGD, at least at :data:`DECIDING`.
    against_base : mapping
        RSAM minus the same setting without its ascent.
    """
    remedy, base = (
        {noise: compare(pooled(by_set), len(KERNELS)) for noise, by_set in one.items()}
        for one in (against_remedy, against_base)
    )
    means = [sum(values) / len(values) for noise in DECIDING for values in against_remedy[noise].values()]
    intervals = [remedy[noise].simultaneous for noise in DECIDING]
    if all(interval.low > ASKED for interval in intervals) and min(means) >= 0:
        verdict = "better"
    elif any(interval.high < ASKED for interval in intervals):
        verdict = "not better"
    else:
        verdict = "undecided"
    return Answer(verdict, all(base[noise].simultaneous.low > 0 for noise in DECIDING), remedy, base)


def pooled(by_set: Mapping[str, Sequence[float]]) -> list[float]:
    """Average over data sets, seed by seed."""
    return [sum(values) / len(values) for values in zip(*by_set.values(), strict=True)]
