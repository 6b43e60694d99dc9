"""Write the tables of the study."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.intervals import Interval, t_interval
from benchmarks.report.table import markdown_table
from benchmarks.run import Knob, Run
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.comparison.sampling import Sample
from benchmarks.studies.comparison.tables import Cases
from benchmarks.studies.fair.comparisons import Answer
from benchmarks.studies.fair.differences import Difference, at_best, choice_error, lead, over_settings

__all__ = ["accuracies", "choices", "differences", "settings", "verdicts", "widened"]


def verdicts(found: Sequence[Answer]) -> str:
    """Show each line of a claim with its verdict and what it rests on."""
    rows = [
        (
            answer.claim,
            f"**{answer.judged.outcome}**",
            answer.label,
            *map(_shown, (answer.judged.pooled, answer.judged.over_cases, answer.best.pooled)),
            answer.deciding,
        )
        for answer in found
    ]
    columns = ("claim", "verdict", "difference, points", "pooled", "over cases", "at the best settings", "would decide")
    return markdown_table(columns, rows)


def differences(found: Sequence[Answer]) -> str:
    """Show each difference by case, and those from other methods."""
    rows = []
    for answer in found:
        for label, one in {answer.label: answer.judged, **_named(answer)}.items():
            by_case = (f"{t_interval(values):.2f}" for values in one.by_case.values())
            rows.append((label, *by_case, _shown(one.pooled)))
    return markdown_table(("difference, points", *found[0].judged.by_case, "pooled"), rows)


def _named(answer: Answer) -> dict[str, Difference]:
    return {f"{answer.minuend} − {label}": other for label, other in answer.beside.items()} | {
        f"{answer.label}, at the best": answer.best
    }


def _shown(interval: Interval) -> str:
    return f"{interval:.2f}"


def accuracies(cases: Cases) -> str:
    """Show the test accuracy of each method, over its settings and at the best one."""
    labels = {entry.name: entry.contestant.label for case in cases for entry in case}
    rows = []
    for name, label in labels.items():
        cells = []
        for case in cases:
            cells.append(f"{t_interval(over_settings(case, name)):.1f}")
            cells.append(f"{t_interval(at_best(case, name)).mean:.1f}")
        rows.append((label, *cells))
    header = [cell for case in cases for cell in (case[0].case.label, "at the best")]
    return markdown_table(("test accuracy, %", *header), rows)


def settings(case: Sequence[Entry]) -> str:
    """Show the chosen settings of each method, what they were chosen by, and which lie at an end of a range."""
    rows = [
        (
            entry.contestant.label,
            f"{entry.rank + 1}",
            *(_value(entry, knob) for knob in _KNOBS),
            f"{100 * entry.tuned.scores[_setting(entry)]:.1f}",
            f"{t_interval([entry.case.score.of(row) for row in entry.rows]):.1f}",
            _ends(entry),
            str(sum(row.diverged for row in entry.rows) or ""),
        )
        for entry in case
    ]
    header = ("method", "place", *(knob.label for knob in _KNOBS), "validation, %", "test, %", "at an end", "diverged")
    return markdown_table(header, rows)


_KNOBS = (Knob.LR, Knob.WEIGHT_DECAY, Knob.KERNEL_RATE, Knob.RHO, Knob.PENALTY)


def _setting(entry: Entry) -> Run:
    return entry.tuned.best(entry.rank + 1)[entry.rank]


def _value(entry: Entry, knob: Knob) -> str:
    return f"{knob.of(_setting(entry)):g}" if knob in entry.contestant.grid.knobs else ""


def _ends(entry: Entry) -> str:
    """Name the knobs at an end that is not a natural one."""
    grid = entry.contestant.grid
    assert isinstance(grid, Sample)
    return ", ".join(f"{knob.label} {'high' if upper else 'low'}" for knob, upper in grid.ends(_setting(entry)))


def choices(cases: Cases) -> str:
    """Show by how much the best setting leads, and the standard error of a difference between kept settings."""
    best = [[entry for entry in case if entry.rank == 0] for case in cases]
    rows = [
        (of_name[0].contestant.label, *(f"{lead(entry):.2f} ({choice_error(entry):.2f})" for entry in of_name))
        for of_name in zip(*best, strict=True)
    ]
    return markdown_table(("lead (its standard error), points", *(case[0].case.label for case in cases)), rows)


def widened(cases: Cases) -> str:
    """List ranges that were widened; and at the ends of which, so wide, a best setting still lies."""
    rows = []
    for case in cases:
        for entry in (e for e in case if e.rank == 0):
            grid = entry.contestant.grid
            assert isinstance(grid, Sample)
            still = {knob for knob, _ in grid.ends(entry.tuned.setting)}
            for was, now in zip(grid.parts[0].ranges, grid.ranges, strict=True):
                if was != now or now.knob in still:
                    row = (case[0].case.label, entry.contestant.label, now.knob.label)
                    ranges = (f"{one.low:g} to {one.high:g}" for one in (was, now))
                    rows.append((*row, *ranges, "yes" if now.knob in still else ""))
    return markdown_table(("case", "method", "knob", "at first", "widened", "best still at an end"), rows)
