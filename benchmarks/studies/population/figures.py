"""Figures of the population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import rsam
from benchmarks.report.forest import Group, Line, draw_forest
from benchmarks.report.svg import drawing
from benchmarks.studies.population.claims import predicted, usable
from benchmarks.studies.population.design import Member
from benchmarks.studies.population.features import Point, at_end, at_fraction, matrix, of_length
from benchmarks.studies.population.ranks import Correlation
from benchmarks.studies.population.rules import (
    ADJUSTED_R2,
    CARRIED,
    EARLY,
    EARLY_SHARE,
    THRESHOLD,
)
from benchmarks.studies.population.training import FRACTIONS, Trajectory
from benchmarks.studies.population.verdicts import Findings, judge_c1, judge_c2, judge_c3, judge_c4

__all__ = ["claim_groups", "draw_axes", "draw_gaps", "draw_times"]

_COLOURS = ("#0072B2", "#C04A00", "#009E73")
Population = Mapping[Member, Trajectory]


def claim_groups(found: Mapping[str, Findings]) -> list[Group]:
    """Lay out the number that decides each claim, with what the claim asks, by the label of the data set."""
    if not found:
        return []
    every = list(found.values())
    decisive = (
        (f"C1: adjusted R², published {ADJUSTED_R2}", judge_c1([f.margins.adjusted for f in every]),
         [f.margins.adjusted for f in every], "adjusted R²", ADJUSTED_R2),
        (f"C2: R² at {EARLY:.0%} of the training", judge_c2([f.early for f in every]),
         [f.early for f in every], "as a part of R² at its end", EARLY_SHARE),
        ("C3: carried over to a quarter", judge_c3([f.carried for f in every]),
         [f.carried.r2 for f in every], "R²", CARRIED),
        ("C4: curvature and test error at one loss", judge_c4([f.curvature for f in every]),
         [f.curvature.average for f in every], "Kendall's coefficient within axes", THRESHOLD),
    )  # fmt: skip
    groups = []
    for title, verdict, intervals, unit, mark in decisive:
        lines = [
            Line(label, interval, f"{interval.mean:.2f}", "undecided")
            for label, interval in zip(found, intervals, strict=True)
        ]
        groups.append(Group(title, lines, unit, verdict, mark))
    return groups


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
    with drawing(path, 6.4) as figure:
        above, below = figure.subplots(2, 1)
        for colour, (label, networks) in zip(_COLOURS, by_place.items(), strict=False):
            points = usable(at_end(networks), "margins")
            if predicted(points, "margins"):
                _diagonal(above, points, _fitted(points).held_out(), label, colour)
            full, short = _full_and_short(networks)
            if predicted(full, "margins") and short:
                _diagonal(below, short, _carried(full, short), label, colour)
        above.set_title("configurations left out, at the end")
        below.set_title("a quarter of the training, by the model of full length")
        for axes in (above, below):
            axes.set(xlabel="true gap, points", ylabel="predicted gap, points")
            _legend(axes)


def _full_and_short(networks: Population) -> tuple[list[Point], list[Point]]:
    points = usable(at_end(networks), "margins")
    return of_length(points, "full"), of_length(points, "quarter")


def _fitted(points: Sequence[Point]) -> rsam.margins.GapModel:
    return rsam.margins.GapModel().fit(
        matrix(points, "margins"), [p.gap for p in points], [p.member.base for p in points]
    )


def _carried(full: Sequence[Point], short: Sequence[Point]) -> np.ndarray:
    """Predict each network by a model that saw nothing of its base configuration."""
    guessed = np.empty(len(short))
    for base in {p.member.base for p in short}:
        own = np.array([p.member.base == base for p in short])
        model = _fitted([p for p in full if p.member.base != base])
        guessed[own] = model.predict(matrix([p for p in short if p.member.base == base], "margins"))
    return guessed


def _diagonal(axes: Any, points: Sequence[Point], guessed: np.ndarray, label: str, colour: str) -> None:
    true = np.array([p.gap for p in points])
    r2 = 1 - ((true - guessed) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    axes.scatter(true, guessed, s=8, alpha=0.6, color=colour, label=f"{label}, R² {r2:.2f}")
    axes.axline((0, 0), slope=1, color="0.6", linewidth=1)


def draw_times(by_place: Mapping[str, Population], path: Path) -> None:
    """Draw k-fold R² through the training, of margins and of loss and accuracy."""
    with drawing(path, 3.6) as figure:
        axes = figure.subplots()
        for colour, (label, networks) in zip(_COLOURS, by_place.items(), strict=False):
            times = [usable(of_length(at_fraction(networks, fraction), "full"), "margins") for fraction in FRACTIONS]
            for name, style in (("margins", "-"), ("loss and accuracy", ":")):
                found = [predicted(points, name) for points in times]
                known = [(f, e.held_out) for f, e in zip(FRACTIONS, found, strict=True) if e]
                fractions = [f for f, _ in known]
                axes.plot(fractions, [e.mean for _, e in known], style, color=colour, label=f"{label}, {name}")
                if name == "margins":
                    low, high = [e.low for _, e in known], [e.high for _, e in known]
                    axes.fill_between(fractions, low, high, color=colour, alpha=0.15)
        axes.set(xlabel="part of the training", ylabel="k-fold R²", ylim=(-0.25, 1))
        _legend(axes)


def _legend(axes: Any) -> None:
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8)
