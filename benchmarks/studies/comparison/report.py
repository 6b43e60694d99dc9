"""Report a comparison: the picture and the verdicts, the tables that they rest on, then how they came about."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.methods import METHODS
from benchmarks.report.forest import Group, draw_forest
from benchmarks.report.opening import ANSWER, DETAILS, opening
from benchmarks.runs.results import Results
from benchmarks.studies.comparison.tables import Cases
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.study import preliminary
from benchmarks.workloads.manifolds import TOLERANCE

__all__ = ["Rules", "on_manifold", "report"]


@dataclass(frozen=True)
class Rules:
    """What a comparison asks, and how the answers are shown.

    Attributes
    ----------
    counted : str
        What final runs are called.
    validation : str
        What validation data are.
    pairing : str
        What methods of a seed share, and what else one should know of how they were trained.
    picture : str
        What the first picture shows, for those who do not see it.
    groups : callable
        Takes the cases and how many groups of cases there are, complete or not; returns what the first picture draws,
        or nothing.
    verdicts : callable
        The same; returns a sentence for each.
    answers : callable
        The same for the report, with the rules by which it is judged.
    details : callable
        Takes the cases and the directory for figures; returns what stands behind the answers, case by case.
    """

    counted: str
    validation: str
    pairing: str
    picture: str
    groups: Callable[[Cases, int], Sequence[Group]]
    verdicts: Callable[[Cases, int], list[str]]
    answers: Callable[[Cases, int], list[str]]
    details: Callable[[Cases, Path], list[str]]


def report(
    title: str,
    question: str,
    rules: Rules,
    cases: Cases,
    missing: Sequence[str],
    asked: int,
    protocol: Protocol,
    costs: str,
    directory: Path,
) -> str:
    """Write figures, and say all in Markdown.

    Parameters
    ----------
    title : str
        Of the report.
    question : str
        One sentence.
    rules : Rules
        How it is answered.
    cases : sequence of sequences of Entry
        Entries of each complete case.
    missing : sequence of str
        Labels of the others.
    asked : int
        Groups of all cases, complete or not.
    protocol : Protocol
        Seeds.
    costs : str
        What all runs took, and whether they stayed on their manifolds.
    directory : Path
        Where figures go.

    Returns
    -------
    str
        The report.
    """
    number = sum(len(entry.rows) for case in cases for entry in case)
    counted = f"{number} {rules.counted}, {len(protocol.final)} seeds per method and case. {costs}"
    groups = rules.groups(cases, asked)
    if groups:
        draw_forest(groups, directory / ANSWER)
    asked_for = " ".join([question, *preliminary(missing)])
    first = opening(title, asked_for, rules.picture if groups else "", rules.verdicts(cases, asked))
    how = f"{counted} {_tuned(cases, rules, protocol)} {_machines(cases)}"
    parts = [*first, *rules.answers(cases, asked), DETAILS, "## How it was done", how]
    return "\n\n".join([*parts, *rules.details(cases, directory)])


def _tuned(cases: Cases, rules: Rules, protocol: Protocol) -> str:
    settings = len(cases[0][0].tuned.scores)
    chosen = (
        f"The learning rate and one knob of each method were chosen on validation data ({rules.validation}) from "
        f"{settings} settings, all with {len(protocol.first)} seed, the best {min(protocol.kept, settings)} with "
        f"{len(protocol.second)} more. Tuning was the same for every method, and used other seeds than those reported."
    )
    return f"{chosen if settings > 1 else 'Settings were not tuned.'} {rules.pairing}"


def _machines(cases: Cases) -> str:
    rows = [row for case in cases for entry in case for row in entry.rows]
    known = [row.megabytes for row in rows if not math.isnan(row.megabytes)]
    memory = f"; at most {max(known):.0f} MB per process" if known else ""
    versions, devices = (
        ", ".join(sorted(found)) for found in ({r.torch_version for r in rows}, {r.device for r in rows})
    )
    return f"torch {versions}, {devices}{memory}."


def on_manifold(results: Results, cases: Cases) -> str:
    """Say whether all runs, also of tuning, ended on their manifolds, and which diverged; nothing if not known."""
    rows = results.columns("violation", "diverged", "run", "key")
    rows = [row for row in rows if not math.isnan(row[0])]
    if not rows:
        return ""
    found = [violation for violation, diverged, *_ in rows if not diverged]
    off = sum(violation > 1 for violation in found)
    kept = f"**{off} left their manifolds**" if off else "All runs that did not diverge ended on their manifolds"
    said = (
        f"{kept}: the largest violation is {max(found, default=math.nan):.2g} times the tolerance "
        f"({TOLERANCE[torch.float32]:g} in single precision, {TOLERANCE[torch.float64]:g} in double)."
    )
    label = _labels(cases)
    lost = [(violation > 1, label(key, run)) for violation, diverged, run, key in rows if diverged]
    if not lost:
        return f"{said} None diverged."
    by_method = Counter(label for _, label in lost)
    methods = "; ".join(f"{label} {number}" for label, number in by_method.most_common())
    return f"{said} {len(lost)} diverged ({methods}), {sum(left for left, _ in lost)} of them off their manifolds."


def _labels(cases: Cases) -> Callable[[str, dict[str, Any]], str]:
    """Return a function that names the contestant of a run, by its key and what the file says of it."""
    entries = [entry for case in cases for entry in case]
    taken = {row.run.key: e.contestant.label for e in entries if e.contestant.settings_of for row in e.rows}
    tuned = {
        (e.contestant.method, e.epochs, e.contestant.kernels): e.contestant.label
        for e in entries
        if not e.contestant.settings_of
    }

    def label(key: str, run: dict[str, Any]) -> str:
        kind = run["method"], run["epochs"], run["workload"].get("kernels", "")
        return taken.get(key) or tuned.get(kind) or METHODS[run["method"]].label

    return label
