"""Show in the README what the studies say of the claims: a line each, and one picture of the numbers that decide."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.report.forest import Group, draw_forest
from benchmarks.report.opening import DETAILS
from benchmarks.report.page import PAGE
from benchmarks.studies.fair import FAIR
from benchmarks.studies.images import OPTIMIZERS
from benchmarks.studies.images.figures import claim_groups
from benchmarks.studies.images.report import judge
from benchmarks.studies.population import POPULATION
from benchmarks.studies.study import PRELIMINARY

__all__ = ["ADDRESS", "CLAIMS", "PICTURE", "draw_claims", "said", "shown_in_readme"]

#: Each claim in a sentence, and the study that decides it.
CLAIMS = {
    "C1": ("A linear model on margin statistics predicts the gap of networks with adjusted R² = 0.89.", "population"),
    "C2": ("Margin statistics correlate with the gap only late in training.", "population"),
    "C3": ("The model does not carry over to shorter training.", "population"),
    "C4": (
        "Curvature around the weights correlates with generalisation. Tuned networks could not settle it, since they "
        "fit their data unequally.",
        "population",
    ),
    "C5": ("A curvature penalty lowers curvature a lot, yet generalises worse than SAM.", "fair"),
    "C6": ("Riemannian SAM does at least a little better than SAM.", "fair"),
}
#: What was measured before, by a design that cannot decide.
BEFORE = {"fair": "optimizers"}
#: Of the repository's files; links are absolute, since the README is shown on PyPI too.
ADDRESS = "https://github.com/rsam-developers/rsam/blob/main"
#: Where the picture is, from the root of the repository.
PICTURE = Path("docs", "claims.svg")
_BLOCK = re.compile(r"(?<=<!-- claims -->\n).*?(?=\n<!-- end -->)", re.DOTALL)


def said(results: Path) -> list[str]:
    """Return a line of Markdown for each claim, the verdict in the words of the study's committed report."""
    lines = []
    for claim, (statement, decisive) in CLAIMS.items():
        study = _there(results, decisive)
        report = (results / study / PAGE).read_text(encoding="utf-8")
        opening = re.split(rf"{re.escape(DETAILS)}|\n#", report)[0]
        found = re.findall(rf"^- (\*\*{claim}\b.*)$", opening, re.MULTILINE)
        warning = "Preliminary: " if found and f"- {PRELIMINARY}" in opening else ""
        for sentence in found or [f"**{claim}, not measured yet:** {statement}"]:
            lines.append(f"- {warning}{sentence} ([{study}]({ADDRESS}/benchmarks/results/{study}/README.md))")
    return lines


def _there(results: Path, study: str) -> str:
    """Return the study that says most of a claim by now: the one before it, until there is a page of its own."""
    return study if (results / study / PAGE).exists() else BEFORE[study]


def draw_claims(results: Path, path: Path) -> None:
    """Draw the numbers that decide the claims, as far as they are measured."""
    draw_forest(_groups(results), path)


def _groups(results: Path) -> list[Group]:
    first = POPULATION.claims(results / POPULATION.name)
    if _there(results, "fair") == "fair":
        return first + FAIR.claims(results / FAIR.name)
    cases, _ = OPTIMIZERS.entries(results / OPTIMIZERS.name)
    return first + [group for group in claim_groups(judge(cases)) if not group.title.startswith("C4")]


def shown_in_readme(lines: list[str], readme: str) -> str:
    """Return the README with these lines between its comments ``<!-- claims -->`` and ``<!-- end -->``."""
    return _BLOCK.sub(lambda _: "\n".join(lines), readme, count=1)
