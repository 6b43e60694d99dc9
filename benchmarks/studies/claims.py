"""Show in the README what the studies say of the claims: a line each, and one picture of the numbers that decide."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.report.forest import Group, draw_forest
from benchmarks.report.opening import DETAILS
from benchmarks.studies.images import OPTIMIZERS
from benchmarks.studies.images.figures import claim_groups
from benchmarks.studies.images.report import judge
from benchmarks.studies.population import POPULATION

__all__ = ["ADDRESS", "CLAIMS", "PICTURE", "draw_claims", "said", "shown_in_readme"]

#: Each claim in a sentence, and the study that decides it.
CLAIMS = {
    "C1": ("A linear model on margin statistics predicts the gap of networks with adjusted R² = 0.89.", "population"),
    "C2": ("Margin statistics correlate with the gap only late in training.", "population"),
    "C3": ("The model does not carry over to shorter training.", "population"),
    "C4": ("Curvature around the weights correlates with generalisation.", "population"),
    "C5": ("A curvature penalty lowers curvature a lot, yet generalises worse than SAM.", "optimizers"),
    "C6": ("Riemannian SAM does at least a little better than SAM.", "optimizers"),
}
#: Of the repository's files; links are absolute, since the README is shown on PyPI too.
ADDRESS = "https://github.com/rsam-developers/rsam/blob/main"
#: Where the picture is, from the root of the repository.
PICTURE = Path("docs", "claims.svg")
_BLOCK = re.compile(r"(?<=<!-- claims -->\n).*?(?=\n<!-- end -->)", re.DOTALL)


def said(results: Path) -> list[str]:
    """Return a line of Markdown for each claim, the verdict in the words of the study's committed report."""
    lines = []
    for claim, (statement, study) in CLAIMS.items():
        opening = (results / study / "README.md").read_text(encoding="utf-8").split("\n#")[0].split(DETAILS)[0]
        found = re.search(rf"^- (\*\*{claim}\b.*)$", opening, re.MULTILINE)
        sentence = found[1] if found else f"**{claim}, not measured yet:** {statement}"
        lines.append(f"- {sentence} ([{study}]({ADDRESS}/benchmarks/results/{study}/README.md))")
    return lines


def draw_claims(results: Path, path: Path) -> None:
    """Draw the numbers that decide the claims, as far as they are measured."""
    draw_forest(_groups(results), path)


def _groups(results: Path) -> list[Group]:
    cases, _ = OPTIMIZERS.entries(results / OPTIMIZERS.name)
    decided = [claim for claim, (_, study) in CLAIMS.items() if study == OPTIMIZERS.name]
    groups = POPULATION.claims(results / POPULATION.name)
    return groups + [group for group in claim_groups(judge(cases)) if group.title[:2] in decided]


def shown_in_readme(lines: list[str], readme: str) -> str:
    """Return the README with these lines between its comments ``<!-- claims -->`` and ``<!-- end -->``."""
    return _BLOCK.sub(lambda _: "\n".join(lines), readme, count=1)
