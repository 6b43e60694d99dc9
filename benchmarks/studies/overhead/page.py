"""Say in Markdown what was measured of the costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.report.opening import opening
from benchmarks.studies.overhead.section import Section

__all__ = ["page"]

#: What the intervals cover, said once.
_INTERVALS = """\
In parentheses: the 95 % interval of a median over repeats, by order statistics and as if repeats were independent. It
covers what varies from repeat to repeat within one process on one machine, not other machines, versions or runs. Fewer
than six repeats have no interval, nor has what is counted: operations and bytes."""


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
        "What steps, curvature, penalties, margins and landscapes cost",
        "Are steps as fast as is asked, beside geoopt and torch, and what do curvature, penalties, margins and "
        "landscapes cost?",
        "How many times as fast as a peer's the steps of each optimizer are, and how many are asked",
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
