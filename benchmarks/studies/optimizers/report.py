"""The report of the comparison: verdicts, tables, figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.methods import METHODS
from benchmarks.runs.tuning import Protocol
from benchmarks.studies.optimizers import figures, tables
from benchmarks.studies.optimizers.cases import CHECKED
from benchmarks.studies.optimizers.claims import Verdict, c4, c5, c6, find
from benchmarks.studies.optimizers.protocol import Entry
from benchmarks.studies.study import preliminary

__all__ = ["of_case", "report", "summary"]

_LEGEND = """\
Mean ± half the 95 % interval (Student's) over the seeds. *minus SAM*: paired by seed, with its own interval; *p*: of
the two-sided paired t-test, times the number of methods compared in the table. *train* loss and accuracy are on the
labels as trained on, wrong ones included, and the *gap* is the latter minus test accuracy. Curvature is that of the
training loss in evaluation mode on 500 training examples (the gradient norm on all), in the metric of the weights'
manifolds; the distance moved is that in the ambient space; geometric means over the seeds; *(8 of 10)*: the others are
not positive, by chance of the estimate, or unknown. *at the edge*: chosen at an end of its grid. *validation*: what the
setting was chosen by."""


def report(
    title: str, cases: Sequence[Sequence[Entry]], missing: Sequence[str], protocol: Protocol, cost: str, directory: Path
) -> str:
    """Write figures, and say all in Markdown.

    Parameters
    ----------
    title : str
        Of the report.
    cases : sequence of sequences of Entry
        Entries of each complete case.
    missing : sequence of str
        Labels of the others.
    protocol : Protocol
        Seeds.
    cost : str
        What all of it took.
    directory : Path
        Where figures go; and ``summary.md``, for the README.

    Returns
    -------
    str
        The report.
    """
    found = judge(cases)
    (directory / "summary.md").write_text(summary(cases, missing, cost) + "\n", encoding="utf-8")
    main = _main(cases)
    parts = [f"# {title}", _introduction(cases, missing, protocol, cost)]
    if found:
        parts += ["## Verdicts", *preliminary(missing), tables.verdicts(found)]
        parts += [_VERDICTS, tables.rules(found), tables.correlations_by_case(main)]
    parts += ["## Test accuracy", tables.overview(cases)]
    for case in cases:
        parts += of_case(case, directory)
    if found:
        parts += ["## Curvature and generalisation (C4)", _C4, tables.correlations(main)]
        parts += ["## Penalties (C5)", _C5, tables.penalties(main)]
    return "\n\n".join(parts)


_VERDICTS = """\
Intervals are simultaneous 95 % ones for each claim over the seeds, p-values corrected alike; these are of the mean
being 0, where a rule may ask for more. Neither holds what another draw of test images, settings or cases would change.
C4 is a mean over cases, which need not agree: case by case below. The gap of networks with wrong labels is almost their
train accuracy, since wrong labels count there as right. The rules, written before the runs:"""
_C4 = """\
Spearman's rank correlation over the networks of a seed, mean ± half the 95 % interval over seeds. Within methods: over
the seeds of a method, mean over methods and cases, p by permuting seeds, not corrected for the number of measures."""

_C5 = """\
Ratios are geometric means over the seeds. SGD was tuned over weight decay too, which changes curvature: what a penalty
does alone, all else equal, the study `ablations` shows."""


def _main(cases: Sequence[Sequence[Entry]]) -> list[Sequence[Entry]]:
    """Those that the verdicts look at."""
    return [case for case in cases if case[0].contestant.case.main]


def judge(cases: Sequence[Sequence[Entry]]) -> list[Verdict]:
    """The verdicts of the main cases, if there are any."""
    main = _main(cases)
    return [verdict(main) for verdict in (c4, c5, c6)] if main else []


def summary(cases: Sequence[Sequence[Entry]], missing: Sequence[str], cost: str) -> str:
    """Verdicts and accuracies, for the README."""
    found = judge(cases)
    judged = [tables.verdicts(found), tables.correlations_by_case(_main(cases))] if found else []
    parts = [*preliminary(missing), *judged, tables.overview(cases)]
    return "\n\n".join([*parts, f"{_seeds(cases)}. {cost}"])


def _seeds(cases: Sequence[Sequence[Entry]]) -> str:
    rows = [entry.rows for case in cases for entry in case]
    return f"{sum(map(len, rows))} networks, {len(rows[0])} seeds a method and case"


def _introduction(cases: Sequence[Sequence[Entry]], missing: Sequence[str], protocol: Protocol, cost: str) -> str:
    rows = [row for case in cases for entry in case for row in entry.rows]
    settings = len(cases[0][0].tuned.scores)
    text = (
        f"{_seeds(cases)}. Test data choose nothing: "
        "they measure the last weights of each network, and draw its learning curve. "
        f"Learning rate and one knob of each method were chosen on a fifth of the training data, held out, from "
        f"{settings} settings: all with {len(protocol.first)} seed, the best {min(protocol.kept, settings)} with "
        f"{len(protocol.second)} more, the same for every method and with other seeds than the reported ones "
        "(a peer's SAM takes the setting of ours). Methods "
        "of a seed share initialisation, data order and wrong labels. torch "
        f"{', '.join(sorted({row.torch_version for row in rows}))}, {', '.join(sorted({row.device for row in rows}))}. "
        f"{cost}"
    )
    return text + (f" Not complete yet: {'; '.join(missing)}." if missing else "")


def of_case(case: Sequence[Entry], directory: Path) -> list[str]:
    """Tables and figures of a case."""
    contest = case[0].contestant.case
    sam = find(case, CHECKED)
    epochs = contest.template.epochs
    same = [entry for entry in case if entry.contestant.at_case_epochs]
    files = {kind: f"{contest.name}-{kind}.svg" for kind in ("intervals", "curves", "scatter")}
    figures.draw_intervals(case, sam, directory / files["intervals"])
    figures.draw_curves(case, directory / files["curves"])
    figures.draw_scatter(case, directory / files["scatter"])
    parts = [f"## {tables.label_of(contest)}", _LEGEND, tables.case_table(same, sam)]
    if len(same) < len(case):
        parts += [
            "### At equal gradient evaluations",
            f"Every method takes about as many gradient evaluations as SAM in {epochs} epochs, tuned anew for that.",
            tables.case_table([e for e in case if not e.contestant.at_case_epochs or _costs_like(e, sam)], sam),
        ]
    return [
        *parts,
        f"![Test accuracy minus SAM's]({files['intervals']})",
        f"![Learning curves]({files['curves']})",
        f"![Test accuracy against curvature]({files['scatter']})",
    ]


def _costs_like(entry: Entry, sam: Entry) -> bool:
    return METHODS[entry.contestant.method].gradients == METHODS[sam.contestant.method].gradients
