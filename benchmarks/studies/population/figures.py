"""Figures of the population."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.markers import CARETDOWN, CARETUP

import rsam
from benchmarks.report.forest import Group, Line, draw_forest
from benchmarks.report.intervals import Interval
from benchmarks.report.svg import drawing
from benchmarks.studies.population.claims import predicted, predictions_carried_over, usable
from benchmarks.studies.population.design import Member
from benchmarks.studies.population.features import Point, above_chance, at_end, at_fraction, matrix, of_length
from benchmarks.studies.population.ranks import Correlation
from benchmarks.studies.population.rules import (
    ADJUSTED_R2,
    CARRIED,
    CHANCE,
    EARLY,
    EARLY_SHARE,
    THRESHOLD,
)
from benchmarks.studies.population.training import FRACTIONS, Trajectory
from benchmarks.studies.population.verdicts import Findings, judge_c1, judge_c2, judge_c3, judge_c4

__all__ = ["claim_groups", "draw_axes", "draw_gaps", "draw_times"]

_COLOURS = ("#0072B2", "#C04A00", "#009E73")
#: What is drawn of predicted gaps, in points.
_GAPS = (-20, 70)
Population = Mapping[Member, Trajectory]


def claim_groups(found: Mapping[str, Findings], learned: Mapping[str, Findings]) -> list[Group]:
    """Lay out the number that decides each claim, by the label of the data set, with what the claim asks.

    Below it is the same number without networks at chance, in a colour of its own, since that decides nothing.
    """
    if not found:
        return []
    every = list(found.values())
    decisive: Sequence[tuple[str, str, Callable[[Findings], Interval], str, float, tuple[float, float] | None]] = (
        (f"C1: adjusted R², published {ADJUSTED_R2}", judge_c1([f.margins.adjusted for f in every]),
         lambda f: f.margins.adjusted, "adjusted R²", ADJUSTED_R2, None),
        (f"C2: R² at {EARLY:.0%} of training", judge_c2([f.early for f in every]),
         lambda f: f.early, "divided by R² at the end", EARLY_SHARE, (-1, 2)),
        ("C3: carried over to a quarter", judge_c3([f.carried for f in every]),
         lambda f: f.carried.r2, "R²", CARRIED, (-1, 1)),
        ("C4: curvature and test error at one loss", judge_c4([f.curvature for f in every]),
         lambda f: f.curvature.average, "Kendall's coefficient within axes", THRESHOLD, None),
    )  # fmt: skip
    groups = []
    for title, verdict, number, unit, mark, limits in decisive:
        lines = []
        for label, one in found.items():
            lines.append(_line(label, number(one), "undecided"))
            if label in learned and title[:2] != "C4":  # whoever reaches its loss has learned something
                lines.append(_line(f"accuracy ≥ {CHANCE:.0%}", number(learned[label]), "beside"))
        groups.append(Group(title, lines, unit, verdict, mark, limits))
    return groups


def _line(label: str, interval: Interval, tone: str) -> Line:
    return Line(label, interval, f"{interval.mean:.2f}", tone)


def draw_axes(correlations: Mapping[str, Correlation], path: Path) -> None:
    """Draw Kendall's coefficient by axis."""
    groups = []
    for label, found in correlations.items():
        lines = [Line(axis.replace("_", " "), e, f"{e.mean:.2f}") for axis, e in found.by_axis.items()]
        lines.append(Line("mean", found.average, f"{found.average.mean:.2f}"))
        groups.append(Group(label, lines, "Kendall's coefficient within the axis", mark=THRESHOLD))
    draw_forest(groups, path)


def draw_gaps(by_place: Mapping[str, Population], path: Path) -> None:
    """Draw predicted against true gaps: at the end, of left-out configurations, and of networks trained a quarter."""
    with drawing(path, 6.8) as figure:
        above, below = figure.subplots(2, 1)
        for colour, (label, networks) in zip(_COLOURS, by_place.items(), strict=False):
            points = usable(at_end(networks), "margins")
            if predicted(points, "margins"):
                _diagonal(above, np.array([p.gap for p in points]), _fitted(points).held_out(), label, colour)
            full, short = (of_length(points, length) for length in ("full", "quarter"))
            if carried := predictions_carried_over(full, short, "margins"):
                _diagonal(below, *carried, label, colour)
        above.set_title("left-out configurations, end of training")
        below.set_title("networks trained a quarter as long, by the full-length model")
        for axes in (above, below):
            axes.set(xlabel="true gap, points", ylabel="predicted gap, points", ylim=_GAPS)
            _legend(axes)


def _fitted(points: Sequence[Point]) -> rsam.margins.GapModel:
    return rsam.margins.GapModel().fit(
        matrix(points, "margins"), [p.gap for p in points], [p.member.base for p in points]
    )


def _diagonal(axes: Any, true: np.ndarray, guessed: np.ndarray, label: str, colour: str) -> None:
    """Draw networks around the diagonal; those that are predicted beyond the axis as arrows at its end."""
    r2 = 1 - ((true - guessed) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    within = (_GAPS[0] <= guessed) & (guessed <= _GAPS[1])
    axes.scatter(true[within], guessed[within], s=8, alpha=0.6, color=colour, label=f"{label}, R² {r2:.2f}")
    for end, arrow, beyond in zip(_GAPS, (CARETDOWN, CARETUP), (guessed < _GAPS[0], guessed > _GAPS[1]), strict=True):
        axes.plot(true[beyond], [end] * beyond.sum(), "", marker=arrow, color=colour)
    axes.axline((0, 0), slope=1, color="0.6", linewidth=1)


def draw_times(by_place: Mapping[str, Population], path: Path) -> None:
    """Draw k-fold R² through the training, of margins and of loss and accuracy, with and without networks at chance."""
    with drawing(path, 6.4) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        for colour, (label, networks) in zip(_COLOURS, by_place.items(), strict=False):
            times = [usable(of_length(at_fraction(networks, fraction), "full"), "margins") for fraction in FRACTIONS]
            _through_training(above, times, label, colour)
            _through_training(below, [above_chance(points) for points in times], label, colour)
        above.set_title("all networks")
        below.set_title(f"networks with a training accuracy of {CHANCE:.0%} by then")
        below.set_xlabel("fraction of training")
        for axes in (above, below):
            axes.set(ylabel="k-fold R²", ylim=(-0.5, 1))
            axes.grid(alpha=0.3)
        if by_place:
            figure.legend(*below.get_legend_handles_labels(), loc="outside lower center")


def _through_training(axes: Any, times: Sequence[Sequence[Point]], label: str, colour: str) -> None:
    for name, style in (("margins", "-"), ("loss and accuracy", ":")):
        found = [predicted(points, name) for points in times]
        known = [(f, e.held_out) for f, e in zip(FRACTIONS, found, strict=True) if e]
        fractions = [f for f, _ in known]
        reach = [e.half_width for _, e in known] if name == "margins" else None
        means = [e.mean for _, e in known]
        axes.errorbar(fractions, means, reach, fmt=style, color=colour, label=f"{label}, {name}", elinewidth=0.8)


def _legend(axes: Any) -> None:
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8)
