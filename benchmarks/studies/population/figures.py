"""The first picture of the population: one panel for each claim."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import rsam
from benchmarks.report.svg import save_svg
from benchmarks.studies.population.claims import predicted, primary, usable
from benchmarks.studies.population.design import Member
from benchmarks.studies.population.features import Point, at_end, at_fraction, matrix
from benchmarks.studies.population.rules import ADJUSTED_R2, MATCHED, THRESHOLD
from benchmarks.studies.population.training import FRACTIONS, Trajectory

__all__ = ["draw"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73")
_NAMES = {"margins": "-", "loss and accuracy": ":"}


def draw(by_place: Mapping[str, Mapping[Member, Trajectory]], path: Path) -> None:
    """Draw predicted against true gaps, R² through training, predictions for short training, and C4 by axis.

    Parameters
    ----------
    by_place : mapping
        Networks by the label of their data set.
    path : Path
        The image to write.
    """
    figure = Figure(figsize=(11, 9), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for colour, (label, networks) in zip(_COLOURS, by_place.items(), strict=False):
        _gaps(panels[0], at_end(networks), label, colour)
        _times(panels[1], networks, label, colour)
        _short(panels[2], networks, label, colour)
    _axes(panels[3], by_place)
    panels[0].set(title="C1: gap at the end, predicted for base configurations left out")
    panels[1].set(title="C2: R² through training, full length", xlabel="part of the training", ylabel="k-fold R²")
    panels[1].axhline(ADJUSTED_R2, color="0.6", linewidth=1, label=f"published, adjusted: {ADJUSTED_R2}")
    panels[2].set(title="C3: the model of full length on a quarter of it")
    panels[3].set(title=f"C4: curvature and test error at training loss {MATCHED}")
    for panel in panels[:3]:
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[1]:
            panel.legend(fontsize=8)
    save_svg(figure, path)


def _diagonal(panel: Any, true: np.ndarray, guessed: np.ndarray, label: str, colour: str) -> None:
    r2 = 1 - ((true - guessed) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    panel.scatter(true, guessed, s=8, alpha=0.6, color=colour, label=f"{label}, R² {r2:.2f}")
    panel.axline((0, 0), slope=1, color="0.6", linewidth=1)
    panel.set(xlabel="true gap, points", ylabel="predicted gap, points")


def _fitted(points: list[Point]) -> rsam.margins.GapModel:
    return rsam.margins.GapModel().fit(
        matrix(points, "margins"), [p.gap for p in points], [p.member.base for p in points]
    )


def _gaps(panel: Any, points: list[Point], label: str, colour: str) -> None:
    if predicted(points, "margins") is None:
        return
    points = usable(points, "margins")
    _diagonal(panel, np.array([p.gap for p in points]), _fitted(points).held_out(), label, colour)


def _times(panel: Any, networks: Mapping[Member, Trajectory], label: str, colour: str) -> None:
    full = {m: t for m, t in networks.items() if m.hyperparameters["length"] == "full"}
    for name, style in _NAMES.items():
        found = [predicted(at_fraction(full, fraction), name) for fraction in FRACTIONS]
        known = [(f, e.held_out) for f, e in zip(FRACTIONS, found, strict=True) if e]
        fractions, values = [f for f, _ in known], [e.value for _, e in known]
        panel.plot(fractions, values, style, color=colour, label=f"{label}, {name}")
        if name == "margins":
            panel.fill_between(
                fractions, [e.low for _, e in known], [e.high for _, e in known], color=colour, alpha=0.15
            )
    panel.set(ylim=(-0.2, 1))


def _short(panel: Any, networks: Mapping[Member, Trajectory], label: str, colour: str) -> None:
    full, short = (
        usable([p for p in at_end(networks) if p.member.hyperparameters["length"] == length], "margins")
        for length in ("full", "quarter")
    )
    if predicted(full, "margins") is None or not short:
        return
    guessed: dict[Member, float] = {}
    for base in {p.member.base for p in short}:
        model = _fitted([p for p in full if p.member.base != base])
        own = [p for p in short if p.member.base == base]
        guessed |= dict(zip([p.member for p in own], model.predict(matrix(own, "margins")), strict=True))
    _diagonal(panel, np.array([p.gap for p in short]), np.array([guessed[p.member] for p in short]), label, colour)


def _axes(panel: Any, by_place: Mapping[str, Mapping[Member, Trajectory]]) -> None:
    correlations = {label: found for label, networks in by_place.items() if (found := primary(networks))}
    names = list(dict.fromkeys(axis for found in correlations.values() for axis in found.by_axis))
    rows = [*names, "mean"]
    for i, (colour, (label, found)) in enumerate(zip(_COLOURS, correlations.items(), strict=False)):
        estimates = {**found.by_axis, "mean": found.mean}
        for name, e in estimates.items():
            y = rows.index(name) + 0.25 * (i - 0.5)
            panel.plot([e.low, e.high], [y, y], color=colour, linewidth=3 if name == "mean" else 1.2)
            panel.plot(e.value, y, "o", color=colour, markersize=5, label=label if name == "mean" else None)
    panel.axvline(0, color="0.6", linewidth=1)
    panel.axvline(THRESHOLD, color="0.6", linewidth=1, linestyle=":")
    panel.set(xlabel="Kendall's coefficient within the axis", xlim=(-1.05, 1.05))
    panel.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows])
    panel.invert_yaxis()
    if correlations:
        panel.legend(fontsize=8)
