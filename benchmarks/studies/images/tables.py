"""Write the tables of the comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from benchmarks.report.intervals import compare, geometric_mean, p_value, t_interval
from benchmarks.report.table import markdown_table
from benchmarks.run import Row
from benchmarks.runs.measurement import MEASURES
from benchmarks.studies.comparison.cases import Case
from benchmarks.studies.comparison.contest import Entry, find
from benchmarks.studies.comparison.tables import (
    COSTS,
    SETTINGS,
    Cases,
    Column,
    edges,
    measure_columns,
    method_table,
    shown,
)
from benchmarks.studies.images.claims import (
    CURVATURES,
    PENALTIES,
    RULES,
    Verdict,
    accuracy,
    differences,
    gap,
    rank_correlation,
    ratios,
    within_methods,
)
from benchmarks.studies.images.contestants import CHECKED
from benchmarks.workloads.images import as_images

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
    """Show each claim with its verdict and what it rests on."""
    rows = [
        (verdict.claim, f"**{verdict.outcome}**", what, *shown(comparison))
        for verdict in found
        for what, comparison in verdict.evidence
    ]
    return markdown_table(("claim", "verdict", "measured", "mean", "interval", "p"), rows)


def rules(found: Sequence[Verdict]) -> str:
    """List the rules of the claims."""
    return "\n".join(f"- **{verdict.claim}.** {RULES[verdict.claim]}" for verdict in found)


def overview(cases: Cases) -> str:
    """Show the test accuracy of every contestant in every case, at the case's epochs."""
    labels = {e.name: e.contestant.label for case in cases for e in case if e.at_case_epochs}
    rows = []
    for name, label in labels.items():
        of_name = [next((e for e in case if e.name == name), None) for case in cases]
        rows.append((label, *("" if e is None else f"{t_interval(accuracies(e)):.1f}" for e in of_name)))
    return markdown_table(("test accuracy, %", *_labels(cases)), rows)


def accuracies(entry: Entry) -> list[float]:
    """List the test accuracy of each seed, in per cent."""
    return [accuracy(row) for row in entry.rows]


def case_table(entries: Sequence[Entry], reference: Entry) -> str:
    """Show contestants beside SAM, which is not tested against itself."""
    against = {
        entry.name: compare(differences(entry, reference), len(entries) - 1)
        for entry in entries
        if entry is not reference
    }
    columns: list[Column] = [
        ("epochs", lambda entry: str(entry.epochs)),
        ("test accuracy, %", lambda entry: f"{t_interval(accuracies(entry)):.2f}"),
        ("minus SAM", lambda entry: f"{against[entry.name].interval:.2f}" if entry.name in against else ""),
        ("p", lambda entry: p_value(against[entry.name].p) if entry.name in against else ""),
        ("train loss", lambda entry: f"{fmean(row.scores['train_loss'] for row in entry.rows):.3f}"),
        ("train, %", lambda entry: f"{fmean(100 * row.scores['train_accuracy'] for row in entry.rows):.1f}"),
        ("gap", lambda entry: f"{fmean(100 * gap(row) for row in entry.rows):.1f}"),
        *measure_columns(list(MEASURES)),
        *SETTINGS,
        ("at the edge", edges),
        ("validation, %", lambda entry: f"{100 * entry.tuned.score:.1f}"),
        *COSTS,
    ]
    return method_table(entries, columns)


def correlations_by_case(cases: Cases) -> str:
    """Correlate the ranks of curvature with those of the gap and of test accuracy, case by case."""
    rows = [_correlation(cases, name, "gap", gap) for name in CURVATURES]
    rows += [_correlation(cases, name, "test accuracy", accuracy) for name in CURVATURES]
    return markdown_table(("rank correlation of", *_labels(cases)), rows)


def _labels(cases: Cases) -> list[str]:
    return [case[0].case.label for case in cases]


def _correlation(cases: Cases, name: str, what: str, value: Callable[[Row], float]) -> tuple[str, ...]:
    """Correlate a measure and something else, case by case."""
    return f"{MEASURES[name].label}, {what}", *(
        f"{t_interval(rank_correlation(case, name, value)):.2f}" for case in cases
    )


def correlations(cases: Cases) -> str:
    """Correlate also the distance moved, in parts, and within methods."""
    rows = []
    for name in MEASURES:
        mean, p = within_methods(cases, name)
        rows.append((*_correlation(cases, name, "gap", gap), f"{mean:.2f} (p {p_value(p)})"))
    rows += [(*_correlation(cases, name, "test accuracy", accuracy), "") for name in CURVATURES]
    for kernels in ("plain", "spheres", "stiefel"):
        parts = [[e for e in case if e.contestant.kernels == kernels] for case in cases]
        if all(len(part) > 2 for part in parts):
            rows += [(*_correlation(parts, name, f"gap, {kernels} only", gap), "") for name in CURVATURES]
    return markdown_table(("rank correlation of", *_labels(cases), "within methods"), rows)


def penalties(cases: Cases) -> str:
    """Show how far each penalty lowers curvature, beside its accuracy; ratios are geometric means over the seeds."""
    rows = []
    for case in cases:
        for method in (*PENALTIES, CHECKED, "rsam", "rsam_stiefel"):
            if not any(e.name == method for e in case):
                continue
            entry, plain = find(case, method), find(case, "sgd")
            lowered = [geometric_mean(ratios(entry.rows, plain.rows, m)) for m in CURVATURES]
            against = "" if method == CHECKED else f"{t_interval(differences(entry, find(case, CHECKED))):.2f}"
            rows.append(
                (
                    entry.case.label,
                    entry.contestant.label,
                    *(f"{ratio:.2f}" for ratio in lowered),
                    f"{t_interval(differences(entry, plain)):.2f}",
                    against,
                )
            )
    header = (
        "case",
        "method",
        *(f"{MEASURES[m].label} / SGD's" for m in CURVATURES),
        "accuracy minus SGD",
        "minus SAM",
    )
    return markdown_table(header, rows)


def label_of(case: Case) -> str:
    """Write the heading of a case."""
    return f"{case.label} ({as_images(case.template.workload).model}, {case.template.epochs} epochs)"
