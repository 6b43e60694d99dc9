"""The report of the population."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.report.table import markdown_table
from benchmarks.studies.population import figures, tables
from benchmarks.studies.population.claims import primary
from benchmarks.studies.population.design import Member
from benchmarks.studies.population.rules import MATCHED, RULES
from benchmarks.studies.population.training import Trajectory
from benchmarks.studies.population.verdicts import findings, verdicts

__all__ = ["report"]

TITLE = "# Do margins and curvature predict the generalisation gap?"


def report(by_place: Mapping[str, Mapping[Member, Trajectory]], missing: list[str], costs: str, directory: Path) -> str:
    """Write the report, and its figure into the directory.

    Parameters
    ----------
    by_place : mapping
        Networks with right labels by the label of their data set.
    missing : list of str
        Warnings about networks that are not there yet.
    costs : str
        What all of it took.
    directory : Path
        Where the figure goes.
    """
    figures.draw(by_place, directory / "population.svg")
    parts = [
        TITLE,
        *missing,
        f"![Predicted gaps, R² through training, and curvature by axis, on {' and '.join(by_place)}](population.svg)",
        _verdicts(by_place),
    ]
    for label, networks in by_place.items():
        parts += _of_place(label, networks)
    return "\n\n".join([*parts, "## Rules, written beforehand", RULES, costs])


def _verdicts(by_place: Mapping[str, Mapping[Member, Trajectory]]) -> str:
    found = {label: findings(networks) for label, networks in by_place.items()}
    known = {label: f for label, f in found.items() if f is not None}
    return verdicts(known) if len(known) == len(found) else "**Too few networks for verdicts.**"


def _of_place(label: str, networks: Mapping[Member, Trajectory]) -> list[str]:
    diverged = sum(t.diverged for t in networks.values())
    found = primary(networks)
    return [
        f"## {label}",
        f"{len(networks)} networks, of which {diverged} diverged.",
        markdown_table(
            ["training", "networks", "train accuracy, %", "gap, points", f"fit (≥ {100 * tables.FIT:.0f} %)"],
            tables.summary(networks),
        ),
        "### C1: what predicts the gap at the end of training",
        tables.prediction(networks),
        "The part of each baseline's squared error in k-fold prediction that margins take away:",
        markdown_table(["baseline", "partial R²"], tables.added(networks)),
        "### C2: R² through the training of networks of full length",
        "Of the gap at the same time:",
        tables.by_time(networks),
        "### C3: models carried over",
        tables.carried(networks),
        "### C4: curvature and test error",
        f"By axis, {tables.CURVATURES['riemannian_trace']}, at training loss {MATCHED}:" if found else "",
        tables.axes(found) if found else "No pair of networks reaches that loss.",
        "Mean over axes, by measure and training loss. \\*: differs from 0 after Holm's correction.",
        tables.correlations(networks, "test_error"),
        "The same of the gap:",
        tables.correlations(networks, "gap"),
        "### Who reaches a training loss",
        tables.reached(networks),
    ]
