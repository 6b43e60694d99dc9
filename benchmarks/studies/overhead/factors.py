"""Lay out the picture of the report of costs: by which factor a step is faster than a peer's."""

from __future__ import annotations

import math

from benchmarks.report.forest import Group, Line
from benchmarks.report.intervals import Interval
from benchmarks.studies.overhead.optimizers import CASES

__all__ = ["factor_groups"]

_PEERS = {case.label: case.peer for case in CASES}


def factor_groups(text: str) -> list[Group]:
    """Read the factors back from the table of optimizers, which is what is kept of a measurement.

    Parameters
    ----------
    text : str
        The report.

    Returns
    -------
    list of Group
        By the factor that is asked, which a line marks.
    """
    table = text.split("### Optimizers\n")[1].split("\n### ")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines() if "|" in line][2:]
    groups: dict[tuple[str, str], list[Line]] = {}
    for label, *cells in rows:
        asked = cells[8]
        for name, cell in ((f"{label}, SGD", cells[2]), ("Adam", cells[6])):
            factor, *short = cell.split()
            tone = "worse" if short else "better"
            line = Line(name, Interval(float(factor), math.nan), factor + ", short" * bool(short), tone)
            groups.setdefault((asked, _PEERS.get(label, "geoopt")), []).append(line)
    return [
        Group(f"at least {_times(asked)}as fast as {peer}?", lines, "times as fast as the peer", mark=float(asked))
        for (asked, peer), lines in groups.items()
    ]


def _times(factor: str) -> str:
    return "" if factor == "1" else f"{factor} times "
