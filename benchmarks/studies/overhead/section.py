"""Define what is kept of a section of the study of costs, and what is shown of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Data", "Measured", "Measurement", "Section"]

#: What was measured for a section, as JSON: seconds of each repeat, counts and bytes, and the settings behind them.
Data = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """Section to measure.

    Attributes
    ----------
    section : str
        Its name, which is the key of its row: a row is kept until it is deleted, and says itself how it was measured.
    """

    section: str

    @property
    def key(self) -> str:
        """Name of the section."""
        return self.section


@dataclass(frozen=True)
class Measured:
    """Row of a section.

    Attributes
    ----------
    run : Measurement
        The section.
    machine : str
        A sentence on what was measured on.
    data : dict
        What was measured.
    """

    run: Measurement
    machine: str
    data: Data


@dataclass(frozen=True)
class Section:
    """Table with its title and verdict.

    Attributes
    ----------
    title : str
        Heading of the section.
    text : str
        Markdown, with the table.
    verdict : str
        One sentence, which the report begins with; empty where nothing is asked.
    """

    title: str
    text: str
    verdict: str = ""

    def __str__(self) -> str:
        return f"### {self.title}\n\n{self.text}"
