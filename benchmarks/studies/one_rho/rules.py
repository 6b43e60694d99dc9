"""Rules of the study's verdicts, written before its networks were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.intervals import Interval
from benchmarks.studies.one_rho.design import AXES, levels
from benchmarks.studies.one_rho.regret import CLOSE, Regrets, Statistic, Table, mean, percentile, resample

__all__ = [
    "BELOW",
    "CHOSEN",
    "JUDGED",
    "LARGEST",
    "PEERS",
    "RULES",
    "Answer",
    "answers",
    "contenders",
    "deciding",
]

#: The rho of each method, chosen on Fashion-MNIST by least mean regret. Without them the study names them, and trains
#: nothing on the sets that are held back.
CHOSEN: Mapping[str, float] = {
    "sam": 0.1,
    "asam": 1.0,
    "layerwise_sam": 0.015,
    "rsam": 0.2,
    "rsam_kernels": 0.4,
    "rsam_parameter_kernels": 0.16,
    "rsam_point": 0.03,
    "rsam_angle": 0.03,
}
#: Largest 90th percentile of regret, and how far it must lie below those of :data:`PEERS`, in points.
LARGEST, BELOW = 1.5, 1.0
PEERS = ("sam", "asam")
#: Methods that verdicts are made of.
JUDGED = (
    "layerwise_sam",
    "rsam",
    "rsam_kernels",
    "rsam_parameter_kernels",
    "rsam_point",
    "rsam_angle",
)
#: Levels of each data set that decide, for a method; and cells that may be the best of such a level.
WORST, BEST = 2, 3

LEVELS = len(levels(AXES))

RULES = f"""\
**Levels.** The centre has 1,000 training examples, a fifth of their labels wrong, 15 epochs (24 on MNIST-1D),
batches of 64, decay of 0.0005 (of plain parameters where kernels live on spheres) and the small network at three
quarters of its width. A level differs from it in one thing. Each of the two bases, SGD and RiemannianSGD on
spheres, has its own learning rate, the best of five without an ascent at the centre, on two other seeds; methods
take that of their base. Every seed draws its own training examples; all methods of a seed share them. All
accuracies are on validation examples with right labels (5,000; MNIST-1D the same): nothing is read on test data.

**Regret** of a method at a level: points that its accuracy with its one rho lies below the best mean accuracy of
all methods and radii there, those without an ascent among them. Of a network that diverged the accuracy is 10 %.

**Development.** On Fashion-MNIST every method is trained at six radii, each twice the one before, at {LEVELS}
levels with two seeds. The rho of a method is the one with the least mean regret over these levels. A rho at an end
of its range is said to be so.

**Reading.** These radii, written down, are read once on CIFAR-10 (JPEG) and MNIST-1D, at the centre and both ends
of every axis (width up to twice instead of four times). The best of a level is there that of half, once and twice
the rho of every method, and of the bases. At the {WORST} levels of each set with the largest regrets of SAM, of
ASAM and of the method with the lowest 90th percentile there, six further seeds are trained of every method's rho, of
both bases and of the {BEST} best cells; at these levels the further seeds alone count, since the first two have chosen
them.

**Statistics.** Mean, 90th percentile and maximum of a method's regrets over the levels of both sets. As measured
they are too large: the best of many noisy means is too high. What this adds is estimated by repetition. The noise
of a level is the deviation of the accuracies that neither cell nor seed explains, over contenders (cells at most
{CLOSE:g} points below the best). True means are drawn: of contenders around measured ones that are shrunk towards
each other as far as their scatter is noise. They are measured again with that noise, and what the statistic gains
on average is taken off. Cells further below, of which some collapse with one seed and not with another, have the
noise of their own seeds if it is larger, up to a quarter of their distance from the best. Intervals are normal, with
the deviation of that gain. On made data they cover a difference of two methods in 91 to 98 of 100 cases, and in 78 to
97 where one of the two collapses at some levels with some seeds; where nearly all cells are equal, regrets stay up to
a point too large, for all methods alike. A corrected regret a little below 0 is as good as the best; the largest of
many is corrected by more than each of them.

**Verdict.** *Tune rho once* holds for a method if its 90th percentile is at most {LARGEST} points and at least
{BELOW:g} point below SAM's and below ASAM's, and the intervals of both differences lie above 0. It does not hold if
the interval of the percentile lies above {LARGEST}, or that of a difference below {BELOW:g}. Else it is undecided.
Intervals are simultaneous over the {len(JUDGED)} methods that are judged (Bonferroni). If the interval of ASAM's
percentile minus a method's includes 0, the two tie. If it holds for RSAM per point on the kernels alone, that
radius with its angle becomes the recommended setting. While a network of a level is missing, on any of the three sets,
there is no verdict.

**Cut**, to fit the time: one radius per parameter for plain parameters too, and layerwise SAM on kernels alone; the
middle ones of three levels of learning rate, depth and batch; no further seeds on Fashion-MNIST, which decides
nothing.
"""


@dataclass(frozen=True)
class Answer:
    """What was found about a method.

    Attributes
    ----------
    verdict : {"holds", "does not hold", "undecided"}
        On "tune rho once".
    mean, percentile : Interval
        Of its regrets.
    below : dict of str to Interval
        How far its percentile lies below each peer's.
    """

    verdict: str
    mean: Interval
    percentile: Interval
    below: dict[str, Interval]


def answers(regrets: Regrets) -> dict[str, Answer]:
    """Judge the methods of :data:`JUDGED` that are there."""
    found = {}
    for method in filter(regrets.methods.__contains__, JUDGED):
        row = regrets.row(method)
        own = regrets.estimate(percentile(row), len(JUDGED))
        below = {peer: regrets.estimate(_below(row, regrets.row(peer)), len(JUDGED)) for peer in PEERS}
        average = regrets.estimate(mean(row), len(JUDGED))
        found[method] = Answer(_verdict(own, list(below.values())), average, own, below)
    return found


def _below(row: int, other: int) -> Statistic:
    """Subtract the percentile of a method's regrets from that of another."""
    return lambda regrets: percentile(other)(regrets) - percentile(row)(regrets)


def _verdict(own: Interval, below: Sequence[Interval]) -> str:
    if own.mean <= LARGEST and all(b.mean >= BELOW and b.low > 0 for b in below):
        return "holds"
    if own.low > LARGEST or any(b.high < BELOW for b in below):
        return "does not hold"
    return "undecided"


def deciding(tables: Sequence[Table], rhos: Mapping[str, float]) -> list[int]:
    """Return the numbers of the levels of a data set that further seeds are trained at."""
    regrets = resample(tables, rhos, draws=1)
    judged = [method for method in JUDGED if method in rhos]
    leading = min(judged, key=lambda method: float(percentile(regrets.row(method))(regrets.measured)))
    chosen: set[int] = set()
    for method in (*PEERS, leading):
        own = regrets.measured[regrets.row(method)]
        chosen.update(sorted(range(len(tables)), key=lambda level: -own[level])[:WORST])
    return sorted(chosen)


def contenders(table: Table, rhos: Mapping[str, float]) -> list[tuple[str, float]]:
    """List what is trained with further seeds at a level: every method at its rho, the best cells so far, the bases."""
    best = sorted(table, key=lambda cell: -sum(table[cell]))[:BEST]
    bases = [(name, rho) for name, rho in table if rho == 0]
    return list(dict.fromkeys([*rhos.items(), *best, *bases]))
