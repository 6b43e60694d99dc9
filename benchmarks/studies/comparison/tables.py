"""Define the columns and formats that tables of comparisons share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.report.intervals import Comparison, geometric, p_value, t_interval
from benchmarks.report.table import markdown_table
from benchmarks.run import Knob, Row
from benchmarks.runs.measurement import MEASURES
from benchmarks.studies.comparison.contest import Entry

__all__ = [
    "COSTS",
    "SETTINGS",
    "Cases",
    "Column",
    "edges",
    "mean",
    "measure_columns",
    "measured",
    "method_table",
    "shown",
]

#: Entries of each case.
Cases = Sequence[Sequence[Entry]]
#: A heading, and a function that writes the cell of a method.
Column = tuple[str, Callable[[Entry], str]]


def method_table(entries: Sequence[Entry], columns: Sequence[Column]) -> str:
    """Write one row per contestant."""
    rows = [(entry.contestant.label, *(cell(entry) for _, cell in columns)) for entry in entries]
    return markdown_table(("method", *(heading for heading, _ in columns)), rows)


def mean(numbers: Sequence[float], spec: str, none: str = "diverged") -> str:
    """Print mean and interval of the known numbers, and how many these are unless all are known."""
    known = [number for number in numbers if not math.isnan(number)]
    if not known:
        return none
    return f"{t_interval(known):{spec}}" + ("" if len(known) == len(numbers) else f" ({len(known)} of {len(numbers)})")


def shown(comparison: Comparison) -> tuple[str, str, str]:
    """Print mean, simultaneous interval and p-value; of a single seed the mean alone."""
    interval = comparison.simultaneous
    if math.isnan(interval.half_width):
        return f"{interval.mean:.2f}", "", ""
    return f"{interval.mean:.2f}", f"{interval.low:.2f} to {interval.high:.2f}", p_value(comparison.p)


def measured(row: Row, name: str) -> float:
    """Look up a measure; nan where it was not taken."""
    return row.measures.get(name, math.nan)


def measure_columns(names: Sequence[str]) -> list[Column]:
    """Show geometric means of measures."""
    return [
        (MEASURES[name].label, lambda entry, name=name: geometric([measured(row, name) for row in entry.rows]))  # type: ignore[misc]
        for name in names
    ]


def edges(entry: Entry) -> str:
    """Name which of learning rate and knob were chosen at an end of their grid."""
    return ", ".join(knob.label for knob in entry.contestant.grid.knobs if entry.tuned.at_edge(knob.of))


def _knobs(entry: Entry) -> str:
    """Name the chosen values of all knobs but the learning rate."""
    others = [knob for knob in entry.contestant.grid.knobs if knob is not Knob.LR]
    return ", ".join(f"{knob.label} {knob.of(entry.tuned.setting):g}" for knob in others)


SETTINGS: list[Column] = [("lr", lambda entry: f"{entry.tuned.setting.lr:g}"), ("knob", _knobs)]
COSTS: list[Column] = [
    ("ms per step", lambda entry: f"{1000 * median(row.seconds_per_step for row in entry.rows):.1f}"),
    ("diverged", lambda entry: str(sum(row.diverged for row in entry.rows) or "")),
]
