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
Mean ± half the 95 % Student interval over the seeds. *minus SAM*: paired by seed, with its own interval. *p*: of the
two-sided paired t-test, times the number of methods compared in the table. *train*: loss and accuracy on the labels as
trained on, wrong ones included. *gap*: train minus test accuracy. Curvature is that of the training loss in evaluation
mode on 500 training examples (the gradient norm on all), in the metric of the weights' manifolds; the distance moved is
in the ambient space. Both are geometric means over the seeds; with *(8 of 10)*, the other values are unknown, or not
positive because the estimate is noisy. *knob*: what was tuned besides the learning rate. *at the edge*: chosen at an
end of its grid. *validation*: accuracy that settings were chosen by."""


_VERDICTS = """\
Intervals are 95 % intervals over the seeds, simultaneous within each claim, and p-values are corrected alike. The
p-values test a mean of 0, while a rule may require more. Neither covers other draws of test images, settings or cases.
C4 is a mean over cases, which need not agree; they are shown separately below. With wrong labels, the gap mostly
reflects train accuracy, since wrong labels count as right there. The rules, written before the runs:"""
_C4 = """\
Spearman's rank correlation over the networks of one seed, mean ± half the 95 % interval over seeds. *within methods*:
correlation over the seeds of one method, mean over methods and cases; p by permuting seeds, not corrected for the
number of measures."""

#: What to add to a verdict that does not settle its claim.
_UNSETTLED = {
    "C4": " *These tuned networks cannot settle it:* their gap depends on how much of their data they fit. The study "
    "`population` compares networks at one training loss."
}

_C5 = """\
Ratios are geometric means over the seeds. SGD was also tuned over weight decay, which changes curvature. The study
`ablations` shows the effect of a penalty alone, all else equal."""


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
    pairing="The peer's SAM takes the settings of ours. Nothing is chosen on test data, which only measure the last "
    "weights of each network and its learning curve. With the same seed, all methods share initialisation, data order "
    "and wrong labels.",
    picture="Differences in test accuracy and in curvature that decide the claims, with their intervals",
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
            f"Every method takes about as many gradient evaluations as SAM in {epochs} epochs, and was tuned again for "
            "it.",
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
