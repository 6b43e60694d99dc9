"""Say in Markdown what was measured of the costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.report.opening import opening
from benchmarks.studies.overhead.section import Section

__all__ = ["page"]

#: What the intervals cover, said once.
_INTERVALS = """\
In parentheses: 95 % intervals of medians over repeats, from order statistics, as if repeats were independent. They
cover variation between repeats within one process on one machine, not between machines, versions or runs. Medians of
fewer than six repeats have no interval; nor do counts of operations and bytes."""


def page(sections: Mapping[Section, str]) -> str:
    """Say all in Markdown: the verdicts first, then the tables.

    Parameters
    ----------
    sections : mapping of Section to str
        In order, each with a sentence on what it was measured on.

    Returns
    -------
    str
        The report, with a newline at its end.
    """
    first = opening(
        "Cost of steps, curvature, penalties, margins and landscapes",
        "Do optimizer steps reach their target speed relative to geoopt and torch, and what do curvature, penalties, "
        "margins and landscapes cost?",
        "Speed-up of each optimizer over its peer, and its target",
        [f"**{section.title}:** {section.verdict}" for section in sections if section.verdict],
    )
    return "\n\n".join([*first, *_machines(sections), _INTERVALS, *map(str, sections)]) + "\n"


def _machines(sections: Mapping[Section, str]) -> Iterable[str]:
    """Name the machine, or each machine with the sections that were measured on it."""
    titles: dict[str, list[str]] = {}
    for section, machine in sections.items():
        titles.setdefault(machine, []).append(section.title)
    if len(titles) == 1:
        return titles
    return [f"{'; '.join(of)}: {machine}" for machine, of in titles.items()]
