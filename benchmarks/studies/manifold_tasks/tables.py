"""Write the tables of a comparison on tasks, with paired intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.report.intervals import geometric, judged
from benchmarks.report.table import markdown_table
from benchmarks.runs.measurement import MEASURES
from benchmarks.studies.comparison.contest import Entry, find
from benchmarks.studies.comparison.tables import (
    COSTS,
    SETTINGS,
    Cases,
    Column,
    edges,
    mean,
    measure_columns,
    measured,
    method_table,
    shown,
)
from benchmarks.studies.manifold_tasks.answers import NAMES, QUESTIONS, Answer, answers, improvement, scored, values

__all__ = ["by_case", "case_table", "conclusions", "overview"]

#: Other scores that methods are compared by, case by case; small ones are better where the case's is, and mean ranks.
_ALSO = ("longer_accuracy", "long_accuracy", "longer_log_error", "long_log_error", "mean_rank")
#: Curvature that is compared, too.
_CURVATURE = ("trace", "top_eigenvalue")


def conclusions(cases: Cases, asked: int) -> str:
    """Say what the ascent is worth, and what its geometry is, for each group of cases.

    Parameters
    ----------
    cases : sequence of sequences of Entry
        Entries of each case.
    asked : int
        Number of groups in all, complete or not.

    Returns
    -------
    str
        A table.
    """
    rows = [
        (
            scored(answer.group, answer.members[0]),
            _pair(answer.members[0], answer.method, answer.other),
            *_judged(answer),
        )
        for answer in answers(cases, asked)
    ]
    return markdown_table(("cases", "compared", "better by", "interval", "p", "verdict"), rows)


def _pair(entries: Sequence[Entry], method: str, other: str) -> str:
    return f"{find(entries, method).contestant.label} − {find(entries, other).contestant.label}"


def _judged(answer: Answer) -> tuple[str, str, str, str]:
    return *shown(answer.comparison), judged(answer.comparison.simultaneous)


def overview(cases: Cases) -> str:
    """Show the final scores and curvature of every method on every case."""
    rows: list[tuple[str, ...]] = []
    for case in cases:
        label, first = case[0].case.label, case[0].case.score.name
        spec = ".1f" if case[0].case.score.unit > 1 else ".2f"
        for score in (first, *_other_scores(case)):
            of_score = ".2f" if score == "mean_rank" else spec
            rows.append((label, NAMES[score], *(mean(values(entry, score), of_score) for entry in case)))
        for measure in _measured(case):
            rows.append((label, MEASURES[measure].label, *(geometric(_curvature(entry, measure)) for entry in case)))
    return markdown_table(("case", "score", *(entry.contestant.label for entry in cases[0])), rows)


def by_case(cases: Cases) -> str:
    """Show the same comparisons case by case, by other scores and curvature too, with intervals of their own."""
    pairs = [pair for kind in QUESTIONS.values() for pair in kind]
    rows = []
    for case in cases:
        of = {entry.name: entry for entry in case}
        for score in (case[0].case.score.name, *_other_scores(case)):
            cells = (mean(improvement(of[a], of[b], score), ".2f") for a, b in pairs)
            rows.append((case[0].case.label, NAMES[score], *cells))
        for measure in _measured(case):
            cells = (mean(_flatter(of[a], of[b], measure), ".2f", "not positive") for a, b in pairs)
            rows.append((case[0].case.label, f"{MEASURES[measure].label}, log₂", *cells))
    return markdown_table(("case", "score", *(_pair(cases[0], a, b) for a, b in pairs)), rows)


def _measured(entries: Sequence[Entry]) -> list[str]:
    """List the curvature measures that were taken, to show beside scores."""
    known = {name for entry in entries for row in entry.rows for name in row.measures}
    return [name for name in _CURVATURE if name in known]


def _curvature(entry: Entry, measure: str) -> list[float]:
    return [measured(row, measure) for row in entry.rows]


def _flatter(entry: Entry, base: Entry, measure: str) -> list[float]:
    """Count how often a base's curvature halves to a method's, seed by seed; nan unless both are positive."""
    pairs = zip(_curvature(entry, measure), _curvature(base, measure), strict=True)
    return [math.log2(b / a) if a > 0 and b > 0 else math.nan for a, b in pairs]


def case_table(entries: Sequence[Entry]) -> str:
    """Show methods on a case."""
    first = entries[0].case.score.name
    known = _all_scores(entries)
    columns: list[Column] = [
        (NAMES[name], lambda entry, name=name: mean(values(entry, name), ".2f"))  # type: ignore[misc]
        for name in (first, *(name for name in NAMES if name != first and name in known))
    ]
    columns += [
        ("better than base", lambda entry: _better(entry, entries)),
        *measure_columns(("gradient_norm", *_CURVATURE)),
        *SETTINGS,
        ("at the edge", lambda entry: _chosen(entry, entries)),
        ("off the manifold", lambda entry: f"{max(_violations(entry), default=math.nan):.0e}"),
        *COSTS,
    ]
    return method_table(entries, columns)


def _better(entry: Entry, entries: Sequence[Entry]) -> str:
    base = entry.contestant.base
    return mean(improvement(entry, find(entries, base)), ".2f") if base else ""


def _chosen(entry: Entry, entries: Sequence[Entry]) -> str:
    """Say at which edge of the grid the setting lies, or whose setting it is."""
    other = entry.contestant.settings_of
    return f"of {find(entries, other).contestant.label}" if other else edges(entry)


def _violations(entry: Entry) -> list[float]:
    return [row.violation for row in entry.rows if not row.diverged]


def _other_scores(entries: Sequence[Entry]) -> list[str]:
    known = _all_scores(entries)
    return [name for name in _ALSO if name in known]


def _all_scores(entries: Sequence[Entry]) -> set[str]:
    return {name for entry in entries for row in entry.rows for name in row.scores}
