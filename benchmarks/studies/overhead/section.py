"""Define a section of the report of costs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Section"]


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
