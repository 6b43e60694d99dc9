"""Report the comparison of images: verdicts, tables, figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.methods import METHODS
from benchmarks.report.forest import Group
from benchmarks.studies.comparison.contest import Entry, find
from benchmarks.studies.comparison.report import Rules
from benchmarks.studies.comparison.tables import Cases
from benchmarks.studies.images import figures, tables
from benchmarks.studies.images.claims import Verdict, c4, c5, c6, statement
from benchmarks.studies.images.contestants import CHECKED

__all__ = ["RULES", "judge", "of_case"]

_LEGEND = """\
Mean ± half the 95 % interval (Student's) over the seeds. *minus SAM*: paired by seed, with its own interval; *p*: of
the two-sided paired t-test, times the number of methods compared in the table. *train* loss and accuracy are on the
labels as trained on, wrong ones included, and the *gap* is the latter minus test accuracy. Curvature is that of the
training loss in evaluation mode on 500 training examples (the gradient norm on all), in the metric of the weights'
manifolds; the distance moved is that in the ambient space; geometric means over the seeds; *(8 of 10)*: the others are
not positive, by chance of the estimate, or unknown. *at the edge*: chosen at an end of its grid. *validation*: what the
setting was chosen by."""


_VERDICTS = """\
Intervals are simultaneous 95 % ones for each claim over the seeds, p-values corrected alike; these are of the mean
being 0, where a rule may ask for more. Neither holds what another draw of test images, settings or cases would change.
C4 is a mean over cases, which need not agree: case by case below. The gap of networks with wrong labels is almost their
train accuracy, since wrong labels count there as right. The rules, written before the runs:"""
_C4 = """\
Spearman's rank correlation over the networks of a seed, mean ± half the 95 % interval over seeds. Within methods: over
the seeds of a method, mean over methods and cases, p by permuting seeds, not corrected for the number of measures."""

#: What to add to a verdict that does not settle its claim.
_UNSETTLED = {
    "C4": " *These tuned networks cannot settle it:* their gap follows how much of their data they fit. The study "
    "`population` compares networks at one training loss."
}

_C5 = """\
Ratios are geometric means over the seeds. SGD was tuned over weight decay too, which changes curvature: what a penalty
does alone, all else equal, the study `ablations` shows."""


def judge(cases: Cases) -> list[Verdict]:
    """Judge the main cases, if there are any."""
    main = _main(cases)
    return [verdict(main) for verdict in (c4, c5, c6)] if main else []


def _main(cases: Cases) -> Cases:
    """Choose those that the verdicts look at."""
    return [case for case in cases if case[0].case.main]


def _groups(cases: Cases, asked: int) -> list[Group]:
    return figures.claim_groups(judge(cases))


def _sentences(cases: Cases, asked: int) -> list[str]:
    return [
        f"**{verdict.claim}, {verdict.outcome}:** {statement(verdict.claim)}{_UNSETTLED.get(verdict.claim, '')}"
        for verdict in judge(cases)
    ]


def _answers(cases: Cases, asked: int) -> list[str]:
    found = judge(cases)
    parts = ["## Verdicts", tables.verdicts(found), _VERDICTS, tables.rules(found)] if found else []
    parts += [tables.correlations_by_case(_main(cases))] if found else []
    return [*parts, "## Test accuracy", tables.overview(cases)]


def _details(cases: Cases, directory: Path) -> list[str]:
    parts = [part for case in cases for part in of_case(case, directory)]
    if main := _main(cases):
        parts += ["## Curvature and generalisation (C4)", _C4, tables.correlations(main)]
        parts += ["## Penalties (C5)", _C5, tables.penalties(main)]
    return parts


RULES = Rules(
    counted="networks",
    validation="a fifth of the training data, held out",
    pairing="A peer's SAM takes the setting of ours. Test data choose nothing: they measure the last weights of each "
    "network, and draw its learning curve. Methods of a seed share initialisation, data order and wrong labels.",
    picture="Differences of test accuracy and of curvature that the claims are judged by, with their intervals",
    groups=_groups,
    verdicts=_sentences,
    answers=_answers,
    details=_details,
)


def of_case(case: Sequence[Entry], directory: Path) -> list[str]:
    """Write tables and draw figures of a case."""
    contest = case[0].case
    sam = find(case, CHECKED)
    epochs = contest.template.epochs
    same = [entry for entry in case if entry.at_case_epochs]
    files = {kind: f"{contest.name}-{kind}.svg" for kind in ("intervals", "curves", "scatter")}
    figures.draw_intervals(case, sam, directory / files["intervals"])
    figures.draw_curves(case, directory / files["curves"])
    figures.draw_scatter(case, directory / files["scatter"])
    parts = [f"## {tables.label_of(contest)}", _LEGEND, tables.case_table(same, sam)]
    if len(same) < len(case):
        parts += [
            "### At equal gradient evaluations",
            f"Every method takes about as many gradient evaluations as SAM in {epochs} epochs, tuned anew for that.",
            tables.case_table([e for e in case if not e.at_case_epochs or _costs_like(e, sam)], sam),
        ]
    return [
        *parts,
        f"![Test accuracy minus SAM's]({files['intervals']})",
        f"![Learning curves]({files['curves']})",
        f"![Test accuracy against curvature]({files['scatter']})",
    ]


def _costs_like(entry: Entry, sam: Entry) -> bool:
    return METHODS[entry.contestant.method].gradients == METHODS[sam.contestant.method].gradients
