"""Keep the figures of costs in the repository's README equal to the rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.studies.overhead.margins import FOUR_LAYERS, PASSES
from benchmarks.studies.overhead.savings import PART
from benchmarks.studies.overhead.section import Measured
from benchmarks.studies.overhead.timing import median_ratio

__all__ = ["QUOTES", "Quote", "with_figures"]

_FIGURE = r"[\d.]+(?:\s+\([\d.]+–[\d.]+\))?"


@dataclass(frozen=True)
class Quote:
    """Ratio of two times in a sentence.

    Attributes
    ----------
    words : str
        Words around the figure, which ``{}`` stands for; they occur once.
    path : tuple of str
        Section, and keys that lead to the times in its data.
    part, whole : str
        Divided by each other.
    decimals : int
        Number of decimals that are shown.
    """

    words: str
    path: tuple[str, ...]
    part: str
    whole: str
    decimals: int = 2

    def figure(self, rows: Mapping[str, Measured]) -> str:
        """Print the median with its interval."""
        section, *keys = self.path
        times = rows[section].data
        for key in keys:
            times = times[key]
        return f"{median_ratio(times, self.part, self.whole):.{self.decimals}f}"

    def pattern(self) -> re.Pattern[str]:
        """Match the words, however they are broken into lines, and the figure between them."""
        before, after = (r"\s+".join(map(re.escape, words.split(" "))) for words in self.words.split("{}"))
        return re.compile(rf"({before}){_FIGURE}({after})")


QUOTES = (
    Quote(
        "200 small spheres {} times as fast",
        ("optimizers", "cases", "200 spheres of 256", "times"),
        "geoopt Adam",
        "rsam Adam",
        decimals=1,
    ),
    Quote(
        "100 Poincaré balls {} times",
        ("optimizers", "cases", "100 Poincaré 64×16", "times"),
        "geoopt Adam",
        "rsam Adam",
        decimals=1,
    ),
    Quote("batch 256 takes {} times as long as its base's", ("savings", "times", "256"), "RSAM", "RiemannianSGD"),
    Quote("quarter of the batch, it takes {} times", ("savings", "times", "256"), PART, "RiemannianSGD"),
    Quote("trace takes {} times as long in curvlinops", ("traces", "times"), "curvlinops", "rsam"),
    Quote("and {} times in PyHessian", ("traces", "times"), "PyHessian", "rsam"),
    Quote("four layers they cost {} epochs", ("margins", "times"), FOUR_LAYERS, PASSES),
)


def with_figures(readme: str, rows: Mapping[str, Measured]) -> str:
    """Return the README with the figures that were measured last.

    Parameters
    ----------
    readme : str
        Contains the words of each of :data:`QUOTES` once.
    rows : mapping of str to Measured
        By section.

    Returns
    -------
    str
        The README, all else as it was.

    Raises
    ------
    ValueError
        If the words of a quote are not there, or not only once.
    """
    for quote in QUOTES:
        readme, count = quote.pattern().subn(rf"\g<1>{quote.figure(rows)}\g<2>", readme)
        if count != 1:
            raise ValueError(f"README.md says {quote.words!r} {count} times instead of once; see QUOTES in {__name__}")
    return readme
