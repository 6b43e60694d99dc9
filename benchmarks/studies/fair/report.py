"""Report the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.report.forest import draw_forest
from benchmarks.report.intervals import t_interval
from benchmarks.report.opening import ANSWER, DETAILS, opening
from benchmarks.report.table import markdown_table
from benchmarks.run import Row
from benchmarks.studies.comparison.tables import Cases
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.fair import figures, penalties, tables
from benchmarks.studies.fair.cases import SCORE
from benchmarks.studies.fair.comparisons import answers, sentences
from benchmarks.studies.fair.contestants import CONTESTANTS, VARIANTS
from benchmarks.studies.fair.differences import best_on_validation
from benchmarks.studies.fair.rules import RULES
from benchmarks.studies.study import preliminary
from benchmarks.workloads.samples import as_samples

__all__ = ["report"]

TITLE = "Riemannian SAM, SAM and a trace penalty, all with weight decay"
QUESTION = "Does Riemannian SAM do better than SAM if no method lacks a knob that the others have?"

_SETTINGS = """\
The three best settings of each method, by mean validation accuracy over the tuning seeds. *kernel rate*: factor on the
learning rate for constrained kernels. *at an end*: in the last sixteenth of a range, after widening, towards an end
that is not natural."""
_CHOICES = """\
Uncertainty of the choice: the lead of the best setting over the next one, in points of validation accuracy. In
parentheses: the standard error of a difference between two kept settings, from their scores over the tuning seeds after
subtracting the means of settings and of seeds. Intervals over seeds do not include this uncertainty; averaging over
three settings and over cases reduces it. A method with more knobs has fewer settings near its best one, so its mean
over three may lie further below that one; differences at the best settings are therefore shown as well."""


def report(
    cases: Cases, missing: Sequence[str], protocol: Protocol, costs: str, read: dict[str, list[Row]], directory: Path
) -> str:
    """Write the report, and its figures into the directory.

    Parameters
    ----------
    cases : sequence of sequences of Entry
        Entries of each complete case.
    missing : sequence of str
        Labels of the others.
    protocol : Protocol
        Seeds.
    costs : str
        What all runs took.
    read : dict of str to list of Row
        Rows of the recommended variant, SAM and both bases on more examples; empty if they were not read yet.
    directory : Path
        Where figures go.
    """
    found = answers(cases, len(missing))
    draw_forest(figures.groups(found), directory / ANSWER)
    seeds = len(protocol.final)
    counted = f"There are {seeds} seeds per setting, each with its own training examples. {costs}"
    chosen = best_on_validation(cases, VARIANTS)
    warnings = preliminary(missing)
    if read and chosen not in read:
        warnings.append(f"**Not by the rules**: {CONTESTANTS[chosen].label} is the best variant on validation data.")
    parts = [
        *opening(TITLE, QUESTION, figures.PICTURE, [*warnings, *sentences(found)]),
        tables.verdicts(found),
        penalties.paragraph(directory),
        *_read(read),
        DETAILS,
        "## Differences",
        "Student's 95 % intervals over seeds, each with its own training examples, by case and pooled. Pooled "
        "intervals of C6 are corrected for the number of variants.",
        tables.differences(found),
        "## Test accuracy",
        f"Mean over the best {protocol.best} settings with its interval over seeds, and accuracy at the best setting.",
        tables.accuracies(cases),
        "## Settings",
        f"The variant with the best validation accuracy, mean over settings and cases, is {CONTESTANTS[chosen].label}.",
        _CHOICES,
        tables.choices(cases),
        "Ranges that were widened (for all methods that share them), or that have the best setting at an end:",
        tables.widened(cases),
        _SETTINGS,
        *(part for case in cases for part in (f"### {case[0].case.label}", tables.settings(case))),
        "## Rules, written beforehand",
        RULES,
        counted,
    ]
    return "\n\n".join(parts)


def _read(rows: dict[str, list[Row]]) -> list[str]:
    """Show the accuracy on more examples, and by how much the recommended variant beats each of the others."""
    if not rows:
        return []
    scores = {name: [SCORE.of(row) for row in of_name] for name, of_name in rows.items()}
    variant, *others = scores
    table = [
        (
            CONTESTANTS[name].label,
            f"{t_interval(values):.2f}",
            ""
            if name == variant
            else f"{t_interval([a - b for a, b in zip(scores[variant], values, strict=True)]):.2f}",
        )
        for name, values in scores.items()
    ]
    gain = fmean(scores[variant]) - fmean(scores[others[0]])
    examples = as_samples(rows[variant][0].run.workload).examples
    return [
        f"## The recommended setting, read once on {examples} images",
        "Every method is at its best setting, chosen with fewer images. Intervals are over "
        f"{len(rows[variant])} seeds, whose images are drawn from one pool and overlap. {CONTESTANTS[variant].label} "
        f"differs from {CONTESTANTS[others[0]].label} by {gain:.2f} points.",
        markdown_table(("method", "test accuracy, %", f"{CONTESTANTS[variant].label} minus this method"), table),
    ]
