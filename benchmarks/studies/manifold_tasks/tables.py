"""Tables of a comparison on tasks, with paired intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from benchmarks.report.intervals import Comparison, compare, geometric
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

__all__ = ["QUESTIONS", "RULE", "by_case", "case_table", "conclusions", "improvement", "overview", "values"]

#: Scores as tables name them.
_NAMES = {
    "accuracy": "accuracy, %",
    "longer_accuracy": "a tenth longer, %",
    "long_accuracy": "twice as long, %",
    "train_accuracy": "train, %",
    "log_error": "log₁₀ squared error",
    "longer_log_error": "log₁₀, a tenth longer",
    "long_log_error": "log₁₀, twice as long",
    "train_log_error": "log₁₀, train",
    "map": "MAP, %",
    "mean_rank": "mean rank",
}
#: Other scores that methods are compared by, case by case; small ones are better where the case's is, and mean ranks.
_ALSO = ("longer_accuracy", "long_accuracy", "longer_log_error", "long_log_error", "mean_rank")
#: Curvature that is compared, too.
_CURVATURE = ("trace", "top_eigenvalue")

#: What is compared, each over both bases: the ascent at equal epochs and at equal gradients, the ascent alone, and its
#: geometry.
QUESTIONS = (
    (("rsam", "riemannian_sgd"), ("rsam_adam", "riemannian_adam")),
    (("rsam", "riemannian_sgd_twice"), ("rsam_adam", "riemannian_adam_twice")),
    (("rsam", "riemannian_sgd_alike"), ("rsam_adam", "riemannian_adam_alike")),
    (("rsam", "projected_sam"), ("rsam_adam", "projected_sam_adam")),
)
RULE = """\
There are four questions: what an ascent is worth at equal epochs, at equal gradient evaluations, and by itself (the
base at the same settings), and whether its geometry matters. For each group of cases and each seed, take the mean over
the cases of how much better the first method scores than the second (of errors: their decrease), in the unit given with
the group: points of accuracy or of mean average precision (MAP), or powers of ten of an error. From these means comes
Student's 95 % interval over the seeds, simultaneous (Bonferroni) over all lines that answer the same question, with p
corrected likewise; nothing is corrected for there being four questions. It is *better* if the interval lies above 0,
*worse* if below, and *undecided* otherwise. A network that diverged has the score of one that has learnt nothing. The
rule was written before the runs, except for the third question, which was added when the results of the SPD network
were known and before any final trial of the hyperbolic and recurrent ones."""


def values(entry: Entry, score: str = "") -> list[float]:
    """List a score of each seed; of models that diverged the worst, or nan of another score than the case's."""
    if score in ("", entry.case.score.name):
        return [entry.case.score.of(row) for row in entry.rows]
    unit = 1.0 if score == "mean_rank" else entry.case.score.unit
    return [math.nan if row.diverged else unit * row.scores.get(score, math.nan) for row in entry.rows]


def improvement(entry: Entry, base: Entry, score: str = "") -> list[float]:
    """Compare a method with its base, seed by seed, so that more is better."""
    smaller = entry.case.score.smaller or score == "mean_rank"
    return [(-1 if smaller else 1) * (a - b) for a, b in zip(values(entry, score), values(base, score), strict=True)]


def conclusions(cases: Cases, asked: int) -> str:
    """Say what the ascent is worth, and what its geometry is, for each group of cases.

    Parameters
    ----------
    cases : sequence of sequences of Entry
        Entries of each case.
    asked : int
        How many groups there are, of which some may not be complete.

    Returns
    -------
    str
        A table.
    """
    groups: dict[str, list[Sequence[Entry]]] = {}
    for case in cases:
        groups.setdefault(case[0].case.group, []).append(case)
    rows = []
    for group, members in groups.items():
        for i, (method, other) in enumerate(pair for kind in QUESTIONS for pair in kind):
            of_seeds = zip(*(improvement(find(case, method), find(case, other)) for case in members), strict=True)
            found = compare([fmean(of_seed) for of_seed in of_seeds], asked * len(QUESTIONS[0]))
            rows.append(
                (_scored(group, members[0]) if i == 0 else "", _pair(members[0], method, other), *_judged(found))
            )
    return markdown_table(("cases", "compared", "better by", "interval", "p", "so it is"), rows)


def _scored(label: str, entries: Sequence[Entry]) -> str:
    return f"{label} ({_NAMES[entries[0].case.score.name]})"


def _pair(entries: Sequence[Entry], method: str, other: str) -> str:
    return f"{find(entries, method).contestant.label} − {find(entries, other).contestant.label}"


def _judged(comparison: Comparison) -> tuple[str, str, str, str]:
    interval = comparison.simultaneous
    # of a single seed, whose interval is nan, both are false
    outcome = "better" if interval.low > 0 else "worse" if interval.high < 0 else "undecided"
    return *shown(comparison), outcome


def overview(cases: Cases) -> str:
    """Show the scores of every method on every case, and the curvature that it ended at."""
    rows: list[tuple[str, ...]] = []
    for case in cases:
        spec = ".1f" if case[0].case.score.unit > 1 else ".2f"
        rows.append((_scored(case[0].case.label, case), *(mean(values(entry), spec) for entry in case)))
        for score in _other_scores(case):
            of_score = ".2f" if score == "mean_rank" else spec
            rows.append((_NAMES[score], *(mean(values(entry, score), of_score) for entry in case)))
        for measure in _measured(case):
            rows.append((MEASURES[measure].label, *(geometric(_curvature(entry, measure)) for entry in case)))
    return markdown_table(("case", *(entry.contestant.label for entry in cases[0])), rows)


def by_case(cases: Cases) -> str:
    """Show the same comparisons case by case, by other scores and curvature too, with intervals of their own."""
    pairs = [pair for kind in QUESTIONS for pair in kind]
    rows = []
    for case in cases:
        of = {entry.name: entry for entry in case}
        for score in (case[0].case.score.name, *_other_scores(case)):
            cells = (mean(improvement(of[a], of[b], score), ".2f") for a, b in pairs)
            rows.append((case[0].case.label, _NAMES[score], *cells))
        for measure in _measured(case):
            cells = (mean(_flatter(of[a], of[b], measure), ".2f", "not positive") for a, b in pairs)
            rows.append((case[0].case.label, f"{MEASURES[measure].label}, log₂", *cells))
    return markdown_table(("case", "score", *(_pair(cases[0], a, b) for a, b in pairs)), rows)


def _measured(entries: Sequence[Entry]) -> list[str]:
    """Choose curvature to be shown beside scores, where it was measured."""
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
        (_NAMES[name], lambda entry, name=name: mean(values(entry, name), ".2f"))  # type: ignore[misc]
        for name in (first, *(name for name in _NAMES if name != first and name in known))
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
    """At which edge, or by whom."""
    other = entry.contestant.settings_of
    return f"of {find(entries, other).contestant.label}" if other else edges(entry)


def _violations(entry: Entry) -> list[float]:
    return [row.violation for row in entry.rows if not row.diverged]


def _other_scores(entries: Sequence[Entry]) -> list[str]:
    known = _all_scores(entries)
    return [name for name in _ALSO if name in known]


def _all_scores(entries: Sequence[Entry]) -> set[str]:
    return {name for entry in entries for row in entry.rows for name in row.scores}
