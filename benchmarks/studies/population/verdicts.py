"""Verdicts on claims C1 to C4, by the rules that were written beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.report.intervals import Interval
from benchmarks.studies.population.claims import (
    Carried,
    Predicted,
    carried_over,
    early_and_late,
    early_share,
    loss_alone,
    partial_r2,
    predicted,
    primary,
    usable,
)
from benchmarks.studies.population.design import Member
from benchmarks.studies.population.features import above_chance, at_end, at_fraction, matched_level, of_length
from benchmarks.studies.population.ranks import Correlation
from benchmarks.studies.population.rules import (
    ADJUSTED_R2,
    BIAS,
    CARRIED,
    EARLY,
    EARLY_SHARE,
    SETS,
    THRESHOLD,
)
from benchmarks.studies.population.training import Trajectory

__all__ = [
    "Findings",
    "all_findings",
    "findings",
    "judge_added",
    "judge_c1",
    "judge_c2",
    "judge_c3",
    "judge_c4",
    "overcome",
    "verdicts",
]


@dataclass(frozen=True)
class Findings:
    """What the networks of a data set say.

    Attributes
    ----------
    margins, baseline : Predicted
        From margins at the end of training, and from loss and accuracy.
    added : Interval
        Part of the baseline's squared error that margins take away.
    early, early_baseline : Interval
        R² early in training as a part of that at its end.
    both : tuple of float
        The two, of margins.
    carried, carried_baseline : Carried
        Models of full-length networks applied to short ones.
    curvature, loss : Correlation
        Of the primary measure and of the training loss with the primary outcome.
    matched : float
        Training loss at which these are compared.
    """

    margins: Predicted
    baseline: Predicted
    added: Interval
    early: Interval
    early_baseline: Interval
    both: tuple[float, float]
    carried: Carried
    carried_baseline: Carried
    curvature: Correlation
    loss: Correlation
    matched: float


def findings(networks: Mapping[Member, Trajectory], learned: bool = False) -> Findings | None:
    """Find what verdicts need; None while there are too few networks.

    With ``learned`` networks count only at times when they are above chance on their training data.
    """
    end = usable(at_end(networks), "margins")  # so that the baseline is asked about the same networks
    early = of_length(at_fraction(networks, EARLY), "full")
    if learned:
        end, early = above_chance(end), above_chance(early)
    full, short = (of_length(end, length) for length in ("full", "quarter"))
    found = (
        predicted(end, "margins"),
        predicted(end, "loss and accuracy"),
        partial_r2(end, ["margins"], ["loss and accuracy"]),
        early_share(early, full, "margins"),
        early_share(usable(early, "margins"), full, "loss and accuracy"),
        early_and_late(early, full, "margins"),
        carried_over(full, short, "margins"),
        carried_over(full, short, "loss and accuracy"),
        primary(networks),
        loss_alone(networks),
        matched_level(networks),
    )
    return None if None in found else Findings(*found)  # type: ignore[arg-type]  # none of them is None


def all_findings(by_place: Mapping[str, Mapping[Member, Trajectory]], learned: bool = False) -> dict[str, Findings]:
    """Find what verdicts need on every data set; nothing while there are too few networks on any."""
    found = {label: findings(networks, learned) for label, networks in by_place.items()}
    known = {label: one for label, one in found.items() if one is not None}
    return known if len(known) == len(found) else {}


def verdicts(by_place: Mapping[str, Findings]) -> list[str]:
    """Write of each claim a sentence that stands alone, and in a line below it what is known beside.

    Parameters
    ----------
    by_place : mapping of str to Findings
        By the label of the data set.

    Returns
    -------
    list of str
        For a list in Markdown.
    """
    found = list(by_place.values())

    def on_each(number: Callable[[Findings], str]) -> str:
        return " and ".join(f"{number(one)} on {label}" for label, one in by_place.items())

    def alone(number: Callable[[Findings], str], features: str = "loss and accuracy alone") -> str:
        return f"({features}: {' and '.join(map(number, found))})"

    first = (
        f"**C1 {judge_c1([f.margins.adjusted for f in found])}:** a linear model on margin statistics predicts the gap "
        f"with adjusted R² = {ADJUSTED_R2}. Here it is {on_each(lambda f: f'{f.margins.adjusted:.2f}')} "
        f"{alone(lambda f: f'{f.baseline.adjusted:.2f}')}.",
        f"k-fold R² is {on_each(lambda f: f'{f.margins.held_out:.2f}')} {alone(lambda f: f'{f.baseline.held_out:.2f}')}"
        f". Whether margins add to loss and accuracy: {judge_added([f.added for f in found])}; the fraction of "
        f"squared error that they remove in k-fold prediction is {on_each(lambda f: f'{f.added:.2f}')}.",
    )
    second = (
        f"**C2 {judge_c2([f.early for f in found])}:** margins predict the gap only late in training. k-fold R² at "
        f"{EARLY:.0%} of training, divided by that at its end, is {on_each(lambda f: f'{f.early:.2f}')} "
        f"{alone(lambda f: f'{f.early_baseline:.2f}')}.",
        f"Over networks with margins at both times, R² is "
        f"{on_each(lambda f: '{:.2f} early and {:.2f} at the end'.format(*f.both))}.",
    )
    third = (
        f"**C3 {judge_c3([f.carried for f in found])}:** the model does not carry over to shorter training. On "
        f"networks trained a quarter as long, its R² is {on_each(lambda f: f'{f.carried.r2:.2f}')} "
        f"{alone(lambda f: f'{f.carried_baseline.r2:.2f}')}.",
        f"Its bias is {on_each(lambda f: f'{f.carried.bias:.1f} points')} "
        f"{alone(lambda f: f'{f.carried_baseline.bias:.1f}')}.",
    )
    fourth = (
        f"**C4 {judge_c4([f.curvature for f in found])}:** curvature correlates with generalisation. At equal training "
        f"loss, Kendall's coefficient with test error within axes is {on_each(lambda f: f'{f.curvature.average:.2f}')} "
        f"{alone(lambda f: f'{f.loss.average:.2f}', 'of the training loss itself')}.",
        f"The common training loss is {on_each(lambda f: f'{f.matched}')}; the axis with the lowest coefficient is "
        f"{on_each(_worst_axis)}.",
    )
    return ["\n  ".join(sentences) for sentences in (first, second, third, fourth)]


def _worst_axis(found: Findings) -> str:
    worst = found.curvature.worst
    return f"{worst.replace('_', ' ')}, {found.curvature.by_axis[worst]:.2f},"


def overcome(frozen: Carried, baseline: Carried) -> str:
    """Ask whether frozen features carry over to short training where nothing was chosen, better than the baseline."""
    carries = frozen.r2.mean >= CARRIED and abs(frozen.bias.mean) < BIAS
    return "overcome" if carries and frozen.r2.mean > baseline.r2.mean else "not overcome"


def _decide(holds: Sequence[bool], fails: Sequence[bool]) -> str:
    """A claim has to hold on both sets, and does not hold if it fails on any."""
    return "holds" if _on_all(holds) else "does not hold" if any(fails) else "undecided"


def _on_all(holds: Sequence[bool]) -> bool:
    return len(holds) >= SETS and all(holds)


def judge_c1(adjusted: Sequence[Interval]) -> str:
    """Compare adjusted R² on each set with the published figure."""
    return _decide([e.high >= ADJUSTED_R2 for e in adjusted], [e.high < ADJUSTED_R2 for e in adjusted])


def judge_added(added: Sequence[Interval]) -> str:
    """Ask whether margins take error away from loss and accuracy on every set."""
    return "yes" if _on_all([e.low > 0 for e in added]) else "not shown"


def judge_c2(shares: Sequence[Interval]) -> str:
    """Compare R² early in training with that at its end."""
    return _decide([e.high < EARLY_SHARE for e in shares], [e.low > EARLY_SHARE for e in shares])


def judge_c3(carried: Sequence[Carried]) -> str:
    """Ask whether predictions for short training are wrong on every set, or right on every set."""
    wrong = [c.r2.high < CARRIED or c.bias.low > BIAS or c.bias.high < -BIAS for c in carried]
    right = [c.r2.low > CARRIED and c.bias.low > -BIAS and c.bias.high < BIAS for c in carried]
    return _decide(wrong, [_on_all(right)])


def judge_c4(correlations: Sequence[Correlation]) -> str:
    """Ask whether curvature ranks networks rightly on average, and wrongly along no axis."""
    holds = [c.average.low > THRESHOLD and all(e.high >= -THRESHOLD for e in c.by_axis.values()) for c in correlations]
    return _decide(holds, [c.average.high < THRESHOLD for c in correlations])
