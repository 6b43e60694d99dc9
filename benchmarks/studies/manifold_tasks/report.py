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
Mean ± half the 95 % Student interval over the seeds, not corrected for the number of intervals. *better than base*:
improvement of the first score over the same base optimizer without the ascent, paired by seed; positive is better, also
for errors. A network that diverged has the score of one that has learnt nothing. *(4 of 5)*: the other values are
unknown or, for curvature, not positive. Curvature is that of the training loss after training, on a part of the
training data and in the metric of the manifolds; values are geometric means over the seeds. With kinks (ReLU), it is
the curvature between them. *knob*: what was tuned besides the learning rate. *at the edge*: chosen at an end of its
grid. *off the manifold*: largest violation, over the seeds that did not diverge, of the equation that defines the
manifold at the end of training, as a fraction of the tolerance."""
_BY_CASE = """\
Improvement of the first method over the second, by case and for all scores, with 95 % intervals over the seeds that are
not corrected for their number. They show where the means over cases come from, and decide nothing. Above 0 the first
method is better, also for errors, mean ranks and curvature. Curvature is compared in log₂: 1 means that the first
method has half the curvature of the second."""
_TUNED = """\
Bases were tuned over momentum (or beta 1), and ascents over rho at a momentum of 0.9. A base that does best at another
momentum has an advantage from this. A base at the *settings of RSAM* (the learning rate of RSAM and a momentum of 0.9)
has not; but that learning rate was chosen together with rho, which favours the ascent."""


def _answers(cases: Cases, asked: int) -> list[str]:
    verdict = ["## Effect of the ascent", RULE, _TUNED, conclusions(cases, asked)]
    return [*verdict, "## Scores", overview(cases)]


def _details(cases: Cases, directory: Path) -> list[str]:
    draw_by_case(cases, directory / "by-case.svg")
    parts = ["## Case by case", _BY_CASE, by_case(cases), "![Improvement over the base by case](by-case.svg)", _LEGEND]
    labels = {case[0].case.name: case[0].case.label for case in cases}
    for entries in cases:
        case = entries[0].case
        shared = f" Settings were chosen on: {labels.get(case.tuned_with, case.tuned_with)}." if case.tuned_with else ""
        parts += [f"### {case.label}", f"Seeds vary {case.note}.{shared}", case_table(entries)]
    return parts


RULES = Rules(
    counted="final trials",
    validation="for reconstruction, on the edges that are reconstructed",
    pairing="With the same seed, all methods share initial weights, data, batches and negative samples. An ascent "
    "costs a second gradient evaluation per step, so the bases are also trained for twice the epochs, and tuned again "
    "for it.",
    picture="Improvement of RSAM over its base and over projected SAM, by group of cases",
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
