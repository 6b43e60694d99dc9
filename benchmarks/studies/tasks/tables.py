"""Tables of a comparison on tasks, with paired intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median

from benchmarks.report.intervals import Comparison, compare, geometric, p_value, t_interval
from benchmarks.report.table import markdown_table
from benchmarks.studies.tasks.protocol import Entry
from benchmarks.tasks.methods import METHODS

__all__ = ["KINDS", "RULE", "by_case", "case_table", "conclusions", "improvement", "overview", "values"]

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
_CURVATURE = {"gradient_norm": "gradient norm", "trace": "Hessian trace", "top_eigenvalue": "top eigenvalue"}

#: What is compared, each over both bases: the ascent at equal epochs and at equal gradients, the ascent alone, and its
#: geometry.
KINDS = (
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
    """A score of each seed, as tables show it; of trials that diverged the worst, or nan of another than the case's."""
    name = score or entry.case.score
    unit = 1.0 if name == "mean_rank" else entry.case.unit
    worst = entry.case.worst if name == entry.case.score else math.nan
    return [unit * row.scores.get(name, worst) for row in entry.rows]


def improvement(entry: Entry, base: Entry, score: str = "") -> list[float]:
    """How much better than its base a method is, seed by seed."""
    smaller = entry.case.smaller or score == "mean_rank"
    return [(-1 if smaller else 1) * (a - b) for a, b in zip(values(entry, score), values(base, score), strict=True)]


def _known(numbers: Sequence[float]) -> list[float]:
    return [number for number in numbers if not math.isnan(number)]


def _mean(numbers: Sequence[float], spec: str, none: str = "diverged") -> str:
    known = _known(numbers)
    if not known:
        return none
    return f"{t_interval(known):{spec}}" + ("" if len(known) == len(numbers) else f" ({len(known)} of {len(numbers)})")


def conclusions(cases: Sequence[Sequence[Entry]], asked: int) -> str:
    """What the ascent is worth, and what its geometry is, for each group of cases.

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
        for i, (method, other) in enumerate(pair for kind in KINDS for pair in kind):
            of_cases = [{entry.method: entry for entry in case} for case in members]
            of_seeds = zip(*(improvement(of[method], of[other]) for of in of_cases), strict=True)
            found = compare([fmean(of_seed) for of_seed in of_seeds], asked * len(KINDS[0]))
            compared = f"{METHODS[method].label} − {METHODS[other].label}"
            rows.append((_scored(group, members[0]) if i == 0 else "", compared, *_shown(found)))
    return markdown_table(("cases", "compared", "better by", "interval", "p", "so it is"), rows)


def _scored(label: str, entries: Sequence[Entry]) -> str:
    return f"{label} ({_NAMES[entries[0].case.score]})"


def _shown(comparison: Comparison) -> tuple[str, str, str, str]:
    interval = comparison.simultaneous
    if math.isnan(interval.half_width):  # a single seed
        return f"{interval.mean:.2f}", "", "", "undecided"
    outcome = "better" if interval.low > 0 else "worse" if interval.high < 0 else "undecided"
    return f"{interval.mean:.2f}", f"{interval.low:.2f} to {interval.high:.2f}", p_value(comparison.p), outcome


def overview(cases: Sequence[Sequence[Entry]]) -> str:
    """The scores of every method on every case, and the curvature that it ended at."""
    rows: list[tuple[str, ...]] = []
    for case in cases:
        spec = ".1f" if case[0].case.unit > 1 else ".2f"
        rows.append((_scored(case[0].case.label, case), *(_mean(values(entry), spec) for entry in case)))
        for score in _other_scores(case):
            of_score = ".2f" if score == "mean_rank" else spec
            rows.append((_NAMES[score], *(_mean(values(entry, score), of_score) for entry in case)))
        for measure in _measured(case):
            rows.append((_CURVATURE[measure], *(geometric(_curvature(entry, measure)) for entry in case)))
    return markdown_table(("case", *(METHODS[entry.method].label for entry in cases[0])), rows)


def by_case(cases: Sequence[Sequence[Entry]]) -> str:
    """The same comparisons case by case, by other scores and curvature too, with intervals of their own."""
    pairs = [pair for kind in KINDS for pair in kind]
    rows = []
    for case in cases:
        of = {entry.method: entry for entry in case}
        for score in (case[0].case.score, *_other_scores(case)):
            cells = (_mean(improvement(of[a], of[b], score), ".2f") for a, b in pairs)
            rows.append((case[0].case.label, _NAMES[score], *cells))
        for measure in _measured(case):
            cells = (_mean(_flatter(of[a], of[b], measure), ".2f", "not positive") for a, b in pairs)
            rows.append((case[0].case.label, f"{_CURVATURE[measure]}, log₂", *cells))
    return markdown_table(("case", "score", *(f"{METHODS[a].label} − {METHODS[b].label}" for a, b in pairs)), rows)


def _measured(entries: Sequence[Entry]) -> list[str]:
    """Curvature to be shown beside scores, where it was measured."""
    known = {name for entry in entries for row in entry.rows for name in row.curvature}
    return [name for name in ("trace", "top_eigenvalue") if name in known]


def _curvature(entry: Entry, measure: str) -> list[float]:
    return [row.curvature.get(measure, math.nan) for row in entry.rows]


def _flatter(entry: Entry, base: Entry, measure: str) -> list[float]:
    """How often a base's curvature is to be halved to be a method's, seed by seed; nan unless both are positive."""
    pairs = zip(_curvature(entry, measure), _curvature(base, measure), strict=True)
    return [math.log2(b / a) if a > 0 and b > 0 else math.nan for a, b in pairs]


def case_table(entries: Sequence[Entry]) -> str:
    """Methods on a case."""
    of = {entry.method: entry for entry in entries}
    score = entries[0].case.score
    scores = [score, *(name for name in _NAMES if name != score and name in _all_scores(entries))]
    rows = []
    for name, entry in of.items():
        method, setting = METHODS[name], entry.tuned.setting
        rows.append(
            (
                method.label,
                *(_mean(values(entry, s), ".2f") for s in scores),
                _mean(improvement(entry, of[method.base]), ".2f") if method.base else "",
                *(geometric(_curvature(entry, c)) for c in _CURVATURE),
                f"{setting.lr:g}",
                f"{method.knob} {setting.knob:g}",
                f"of {METHODS[method.settings_of].label}" if method.settings_of else _edges(entry),
                f"{max((row.violation for row in entry.rows if not row.diverged), default=math.nan):.0e}",
                f"{1000 * median(row.seconds_per_step for row in entry.rows):.1f}",
                str(sum(row.diverged for row in entry.rows) or ""),
            )
        )
    header = (
        "method", *(_NAMES[s] for s in scores), "better than base", *_CURVATURE.values(), "lr", "knob", "at the edge",
        "off the manifold", "ms a step", "diverged",
    )  # fmt: skip
    return markdown_table(header, rows)


def _edges(entry: Entry) -> str:
    names = (("lr", "lr"), (METHODS[entry.method].knob, "knob"))
    return ", ".join(label for label, field in names if entry.tuned.at_edge(field))


def _other_scores(entries: Sequence[Entry]) -> list[str]:
    known = _all_scores(entries)
    return [name for name in _ALSO if name in known]


def _all_scores(entries: Sequence[Entry]) -> set[str]:
    return {name for entry in entries for row in entry.rows for name in row.scores}
