"""List what is compared with what, with the words of verdicts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.studies.comparison.tables import Cases
from benchmarks.studies.fair.contestants import CONTESTANTS, PENALTY, VARIANTS
from benchmarks.studies.fair.differences import Difference, difference
from benchmarks.studies.fair.rules import deciding

__all__ = ["BESIDE", "Answer", "answers"]

#: With which RSAM is compared beside SAM, without a verdict.
BESIDE = ("asam", "adamw")


@dataclass(frozen=True)
class Answer:
    """Verdict on a line of a claim, with what stands beside it.

    Attributes
    ----------
    claim : str
        "C6" or "C5".
    label : str
        What is subtracted from what.
    judged : Difference
        Over the means of the settings.
    best : Difference
        The same at the best settings.
    beside : dict of str to Difference
        The same minus other methods, by their labels.
    """

    claim: str
    label: str
    judged: Difference
    best: Difference
    beside: dict[str, Difference]

    @property
    def sentence(self) -> str:
        """Say the verdict, what it rests on, and what would decide it."""
        judged = self.judged
        found = f"{judged.pooled:.2f} points over seeds, {judged.over_cases:.2f} over cases"
        cases = "; ".join(f"{label} {mean:.2f}" for label, mean in zip(judged.by_case, judged.means, strict=True))
        return f"**{self.claim} {judged.outcome}: {self.label}** {found} ({cases}).{self._more()}"

    def _more(self) -> str:
        """Say how many seeds or cases would decide."""
        judged = self.judged
        if judged.missing:
            return " Nothing is decided before all cases are there."
        if judged.outcome != "undecided":
            return ""
        words = {"seeds": judged.of_seeds, "cases": judged.means}
        counts = {what: deciding(values, judged.means, judged.comparisons) for what, values in words.items()}
        said = " or ".join(f"{count} {what}" for what, count in counts.items() if count is not None)
        return f" {said} would decide if means and deviations stayed." if said else " No number of seeds would decide."


def answers(cases: Cases, missing: int = 0) -> list[Answer]:
    """Compare each variant of RSAM, and the penalty, with SAM.

    Parameters
    ----------
    cases : sequence of sequences of Entry
        Entries of each complete case, at least one.
    missing : int
        Number of the other cases; while there are any, nothing is decided.
    """
    number = len(VARIANTS)
    found = [
        Answer(
            "C6",
            f"{CONTESTANTS[variant].label} − SAM",
            difference(cases, variant, "sam", number),
            difference(cases, variant, "sam", number, best=True),
            {CONTESTANTS[other].label: difference(cases, variant, other, number) for other in BESIDE},
        )
        for variant in VARIANTS
    ]
    c5 = Answer(
        "C5",
        f"SAM − {CONTESTANTS[PENALTY].label}",
        difference(cases, "sam", PENALTY),
        difference(cases, "sam", PENALTY, best=True),
        {},
    )
    return [replace(one, judged=replace(one.judged, missing=missing)) for one in (*found, c5)]
