"""Lay out the picture of the report of costs: by which factor a step is faster than a peer's."""

from __future__ import annotations

from benchmarks.report.forest import Group, Line
from benchmarks.studies.overhead import optimizers
from benchmarks.studies.overhead.section import Data

__all__ = ["factor_groups"]


def factor_groups(data: Data) -> list[Group]:
    """Group the factors by the one that is asked, which a line marks.

    Parameters
    ----------
    data : dict
        What was measured of the optimizers.

    Returns
    -------
    list of Group
        In the order of :data:`~benchmarks.studies.overhead.optimizers.CASES`.
    """
    groups: dict[tuple[float, str], list[Line]] = {}
    for case in optimizers.CASES:
        for kind in optimizers.KINDS:
            factor = optimizers.faster(case, data["cases"][case.label]["times"], kind)
            short = factor.estimate < case.factor
            label = f"{case.label}, {kind}" if kind == optimizers.KINDS[0] else kind
            verdict = f"{factor.estimate:.2f}" + ", short" * short
            line = Line(label, factor, verdict, "worse" if short else "better")
            groups.setdefault((case.factor, case.peer), []).append(line)
    return [
        Group(f"at least {_times(asked)}as fast as {peer}?", lines, "speed-up over the peer", mark=asked)
        for (asked, peer), lines in groups.items()
    ]


def _times(factor: float) -> str:
    return "" if factor == 1 else f"{factor:.2g} times "
