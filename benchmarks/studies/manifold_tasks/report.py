"""Report comparisons on manifolds: conclusions, tables, and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report.forest import Group, Line, draw_forest
from benchmarks.report.intervals import Interval, t_interval
from benchmarks.studies.comparison.contest import Entry, find
from benchmarks.studies.comparison.report import Rules
from benchmarks.studies.comparison.tables import Cases
from benchmarks.studies.manifold_tasks.answers import RULE, forest, improvement, sentences, unit
from benchmarks.studies.manifold_tasks.tables import by_case, case_table, conclusions, overview

__all__ = ["RULES"]

_LEGEND = """\
Mean ± half the 95 % interval (Student's) over the seeds, not corrected for the number of such intervals. *better than
base*: how much better the first score is than that of the same base optimizer without the ascent, paired by seed,
whether large or small scores are good; a network that diverged has the score of one that has learnt nothing.
*(4 of 5)*: the others are unknown or, of curvature, not positive.
Curvature is that of the training loss after training, on a part of the training data and in the metric of the
manifolds: geometric means over the seeds. Where units have kinks (ReLU) it is the curvature between them.
*at the edge*: chosen at an end of its grid. *off the manifold*: by how much the equation that defines the manifold is
violated at the end of training, as a part of the tolerance; the largest over the seeds that did not diverge."""
_BY_CASE = """\
How much better, by case and by other scores too, with 95 % intervals over the seeds that are not corrected for their
number: they show where the means over cases come from, and decide nothing. Above 0 the first method is the better one,
of errors, mean ranks and curvature too. Curvature is compared in log₂: 1 means that the first method has half the
curvature of the second."""
_TUNED = """\
A base was tuned over its momentum (or beta 1), an ascent over rho at a momentum of 0.9. So where a base does best at
another momentum, that counts against the ascent. It does not where the base has the *settings of RSAM*, its learning
rate and 0.9; but that learning rate was chosen together with rho, which counts for the ascent."""


def _answers(cases: Cases, asked: int) -> list[str]:
    verdict = ["## What the ascent is worth", RULE, _TUNED, conclusions(cases, asked)]
    return [*verdict, "## Scores", overview(cases)]


def _details(cases: Cases, directory: Path) -> list[str]:
    draw_by_case(cases, directory / "by-case.svg")
    parts = ["## Case by case", _BY_CASE, by_case(cases), "![Score minus that of the base](by-case.svg)", _LEGEND]
    labels = {case[0].case.name: case[0].case.label for case in cases}
    for entries in cases:
        case = entries[0].case
        shared = f" Settings were chosen on: {labels.get(case.tuned_with, case.tuned_with)}." if case.tuned_with else ""
        parts += [f"### {case.label}", f"Seeds vary: {case.note}.{shared}", case_table(entries)]
    return parts


RULES = Rules(
    counted="final trials",
    validation="for reconstruction, on the edges that are reconstructed",
    pairing="At a seed all methods share initial weights, data, batches and negative samples. An ascent costs a second "
    "gradient evaluation per step, so the bases are also trained for twice the epochs, tuned anew for that.",
    picture="How much better RSAM scores than its base and than the projected ascent, by group of cases",
    groups=forest,
    verdicts=sentences,
    answers=_answers,
    details=_details,
)


def draw_by_case(cases: Cases, path: Path) -> None:
    """Draw what each ascent is worth on each case, with its interval; scores of one unit share an axis."""
    groups = [
        Group(entries[0].case.label, _lines(entries), f"better than the base by ({unit(entries)})") for entries in cases
    ]
    draw_forest(groups, path)


def _lines(entries: Sequence[Entry]) -> list[Line]:
    lines = []
    for entry in entries:
        if entry.contestant.base:
            differences = improvement(entry, find(entries, entry.contestant.base))
            known = [better for better in differences if not math.isnan(better)]
            interval = t_interval(known) if known else Interval(math.nan, math.nan)
            lines.append(Line(entry.contestant.label, interval, f"{interval:.2f}"))
    return lines
