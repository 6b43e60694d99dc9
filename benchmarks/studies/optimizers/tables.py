"""Tables of the comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median

from benchmarks.methods import METHODS
from benchmarks.report.intervals import Comparison, compare, geometric, geometric_mean, p_value, t_interval
from benchmarks.report.table import markdown_table
from benchmarks.runs.measurement import MEASURES
from benchmarks.runs.results import Row
from benchmarks.studies.optimizers.cases import CHECKED, Case
from benchmarks.studies.optimizers.claims import (
    CURVATURES,
    PENALTIES,
    RULES,
    Verdict,
    accuracy,
    differences,
    find,
    gap,
    measured,
    rank_correlation,
    ratios,
    within_methods,
)
from benchmarks.studies.optimizers.protocol import Entry

__all__ = [
    "case_table",
    "correlations",
    "correlations_by_case",
    "label_of",
    "overview",
    "penalties",
    "rules",
    "verdicts",
]


def verdicts(found: Sequence[Verdict]) -> str:
    """Each claim with its verdict and what it rests on."""
    rows = [
        (verdict.claim if i == 0 else "", f"**{verdict.outcome}**" if i == 0 else "", what, *_shown(comparison))
        for verdict in found
        for i, (what, comparison) in enumerate(verdict.evidence)
    ]
    return markdown_table(("claim", "verdict", "measured", "mean", "interval", "p of 0"), rows)


def rules(found: Sequence[Verdict]) -> str:
    """The rules of the claims."""
    return "\n".join(f"- **{verdict.claim}.** {RULES[verdict.claim]}" for verdict in found)


def _shown(comparison: Comparison) -> tuple[str, str, str]:
    interval = comparison.simultaneous
    return f"{interval.mean:.2f}", f"{interval.low:.2f} to {interval.high:.2f}", p_value(comparison.p)


def overview(cases: Sequence[Sequence[Entry]]) -> str:
    """Test accuracy of every method in every case, at the case's epochs."""
    methods = list(dict.fromkeys(e.contestant.method for case in cases for e in case))
    rows = []
    for method in methods:
        of_method = [next((e for e in case if _at_epochs(e, method)), None) for case in cases]
        rows.append(
            (METHODS[method].label, *("" if e is None else f"{t_interval(accuracies(e)):.1f}" for e in of_method))
        )
    return markdown_table(("test accuracy, %", *(case[0].contestant.case.label for case in cases)), rows)


def _at_epochs(entry: Entry, method: str) -> bool:
    contestant = entry.contestant
    return contestant.method == method and contestant.at_case_epochs


def accuracies(entry: Entry) -> list[float]:
    """Test accuracy of each seed, in per cent."""
    return [accuracy(row) for row in entry.rows]


def case_table(entries: Sequence[Entry], reference: Entry) -> str:
    """Contestants beside SAM, which is not tested against itself."""
    others = len([e for e in entries if e is not reference])
    rows = []
    for entry in entries:
        method, setting = METHODS[entry.contestant.method], entry.tuned.setting
        against = None if entry is reference else compare(differences(entry, reference), others)
        rows.append(
            (
                method.label,
                str(entry.contestant.epochs),
                f"{t_interval(accuracies(entry)):.2f}",
                "" if against is None else f"{against.interval:.2f}",
                "" if against is None else p_value(against.p),
                f"{fmean(row.final_train_loss for row in entry.rows):.3f}",
                f"{fmean(100 * row.final_train_accuracy for row in entry.rows):.1f}",
                f"{fmean(100 * row.gap for row in entry.rows):.1f}",
                *(geometric([measured(row, name) for row in entry.rows]) for name in MEASURES),
                f"{setting.lr:g}",
                f"{method.knob.replace('_', ' ')} {getattr(setting, method.knob):g}",
                _edges(entry),
                f"{100 * entry.tuned.score:.1f}",
                f"{1000 * median(row.seconds_per_step for row in entry.rows):.1f}",
                str(sum(row.diverged for row in entry.rows) or ""),
            )
        )
    header = (
        "method", "epochs", "test accuracy, %", "minus SAM", "p", "train loss", "train, %", "gap", *MEASURES.values(),
        "lr", "knob", "at the edge", "validation, %", "ms a step", "diverged",
    )  # fmt: skip
    return markdown_table(header, rows)


def _edges(entry: Entry) -> str:
    """Which of learning rate and knob were chosen at an end of their grid."""
    knob = METHODS[entry.contestant.method].knob
    return ", ".join(field.replace("_", " ") for field in ("lr", knob) if entry.tuned.at_edge(field))


def correlations_by_case(cases: Sequence[Sequence[Entry]]) -> str:
    """Rank correlations of curvature with the gap and with test accuracy, case by case."""
    rows = [_correlation(cases, name, "gap", gap) for name in CURVATURES]
    rows += [_correlation(cases, name, "test accuracy", accuracy) for name in CURVATURES]
    return markdown_table(("rank correlation of", *_labels(cases)), rows)


def _labels(cases: Sequence[Sequence[Entry]]) -> list[str]:
    return [case[0].contestant.case.label for case in cases]


def _correlation(
    cases: Sequence[Sequence[Entry]], name: str, what: str, value: Callable[[Row], float]
) -> tuple[str, ...]:
    """A measure and something else, case by case."""
    return f"{MEASURES[name]}, {what}", *(f"{t_interval(rank_correlation(case, name, value)):.2f}" for case in cases)


def correlations(cases: Sequence[Sequence[Entry]]) -> str:
    """The same, and those of the distance moved, in parts, and within methods."""
    rows = []
    for name in MEASURES:
        mean, p = within_methods(cases, name)
        rows.append((*_correlation(cases, name, "gap", gap), f"{mean:.2f} (p {p_value(p)})"))
    rows += [(*_correlation(cases, name, "test accuracy", accuracy), "") for name in CURVATURES]
    for manifold in ("plain", "spheres", "stiefel"):
        parts = [[e for e in case if METHODS[e.contestant.method].manifold == manifold] for case in cases]
        if all(len(part) > 2 for part in parts):
            rows += [(*_correlation(parts, name, f"gap, {manifold} only", gap), "") for name in CURVATURES]
    return markdown_table(("rank correlation of", *_labels(cases), "within methods"), rows)


def penalties(cases: Sequence[Sequence[Entry]]) -> str:
    """How far each penalty lowers curvature, beside its accuracy; ratios are geometric means over the seeds."""
    rows = []
    for case in cases:
        for method in (*PENALTIES, CHECKED, "rsam", "rsam_stiefel"):
            if not any(_at_epochs(e, method) for e in case):
                continue
            entry, plain = find(case, method), find(case, "sgd")
            lowered = [geometric_mean(ratios(entry.rows, plain.rows, m)) for m in CURVATURES]
            against = "" if method == CHECKED else f"{t_interval(differences(entry, find(case, CHECKED))):.2f}"
            rows.append(
                (
                    entry.contestant.case.label,
                    METHODS[method].label,
                    *(f"{ratio:.2f}" for ratio in lowered),
                    f"{t_interval(differences(entry, plain)):.2f}",
                    against,
                )
            )
    header = ("case", "method", *(f"{MEASURES[m]} / SGD's" for m in CURVATURES), "accuracy minus SGD", "minus SAM")
    return markdown_table(header, rows)


def label_of(case: Case) -> str:
    """Heading of a case."""
    run = case.template
    return f"{case.label} ({run.model}, {run.epochs} epochs)"
