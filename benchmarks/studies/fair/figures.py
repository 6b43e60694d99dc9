"""Lay out the first picture."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.forest import Group, Line
from benchmarks.report.intervals import Interval, t_interval
from benchmarks.studies.fair.comparisons import Answer

__all__ = ["PICTURE", "claim_groups", "groups"]

PICTURE = "Differences in test accuracy by case and pooled, with the verdicts"


def groups(found: Sequence[Answer]) -> list[Group]:
    """Draw each difference by case and pooled, and beside it the pooled ones minus other methods."""
    return [Group(answer.label, _lines(answer), "points of test accuracy", answer.judged.outcome) for answer in found]


def claim_groups(found: Sequence[Answer]) -> list[Group]:
    """Draw what each claim rests on alone: a line for each comparison, pooled over cases."""
    return [
        Group(
            f"{claim}: {title}",
            [Line(a.label, a.judged.pooled, a.judged.outcome) for a in found if a.claim == claim],
            "points of test accuracy",
        )
        for claim, title in (("C5", "SAM and the trace penalty"), ("C6", "Riemannian SAM and SAM"))
    ]


def _lines(answer: Answer) -> list[Line]:
    judged = answer.judged
    cases = [_line(label, t_interval(values)) for label, values in judged.by_case.items()]
    pooled = [_line("pooled over cases", judged.pooled), _line("interval over cases", judged.over_cases)]
    beside = [_line(f"pooled, − {label} instead", other.pooled) for label, other in answer.beside.items()]
    return [*cases, *pooled, *beside]


def _line(label: str, interval: Interval) -> Line:
    return Line(label, interval, f"{interval:.2f}")
