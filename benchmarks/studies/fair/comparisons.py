"""List what is compared with what, with the words of verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.studies.comparison.tables import Cases
from benchmarks.studies.fair.contestants import CONTESTANTS, PENALTY, VARIANTS
from benchmarks.studies.fair.differences import Difference, difference
from benchmarks.studies.fair.rules import deciding

__all__ = ["BESIDE", "Answer", "answers", "sentences"]

#: With which RSAM is compared beside SAM and its own base, without a verdict.
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
    def minuend(self) -> str:
        """What the other method is subtracted from."""
        return self.label.split(" − ")[0]

    @property
    def deciding(self) -> str:
        """Say how many seeds or cases would decide an undecided line, if means and deviations stayed as they are."""
        judged = self.judged
        if judged.missing or judged.outcome != "undecided":
            return ""
        words = {"seeds": judged.of_seeds, "cases": judged.means}
        counts = {what: deciding(values, judged.means, judged.comparisons) for what, values in words.items()}
        return " or ".join(f"{count} {what}" for what, count in counts.items() if count is not None) or "no number"


#: Each claim, and what is measured.
_CLAIMS = {
    "C5": (
        "training with a penalty on the Hessian trace generalises worse than SAM",
        "SAM's test accuracy minus the penalty's",
    ),
    "C6": ("Riemannian SAM does at least a little better on test data than SAM", "Test accuracy minus SAM's"),
}


def sentences(found: Sequence[Answer]) -> list[str]:
    """Say of each claim in a line what was found, with the verdict if it is the same for all comparisons."""
    lines = []
    for claim, (statement, measured) in _CLAIMS.items():
        of_claim = [answer for answer in found if answer.claim == claim]
        outcomes = {answer.judged.outcome for answer in of_claim}
        shown = "; ".join(
            (f"{answer.minuend} " if len(of_claim) > 1 else "")
            + f"{answer.judged.pooled:.2f}"
            + (f" ({answer.judged.outcome})" if len(outcomes) > 1 else "")
            for answer in of_claim
        )
        cases, missing = len(of_claim[0].judged.by_case), of_claim[0].judged.missing
        number = f"{cases} of {cases + missing} cases" if missing else f"{cases} cases"
        verdict = f" {outcomes.pop()}" if len(outcomes) == 1 else ""
        lines.append(f"**{claim}{verdict}:** {statement}. {measured}, in points over {number}: {shown}.")
    return lines


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
            {
                CONTESTANTS[other].label: difference(cases, variant, other, number)
                for other in (*BESIDE, CONTESTANTS[variant].base)
            },
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
