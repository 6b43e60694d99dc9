"""The report of a comparison on tasks: tables with paired intervals, and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from matplotlib.figure import Figure

from benchmarks.report.curves import COLOURS
from benchmarks.report.intervals import Comparison, compare, geometric_mean, p_value, t_interval
from benchmarks.report.svg import save_svg
from benchmarks.report.table import markdown_table
from benchmarks.runs.tuning import Protocol
from benchmarks.studies.tasks.protocol import Entry
from benchmarks.tasks.methods import METHODS
from benchmarks.tasks.places import TOLERANCE

__all__ = ["against_base", "case_table", "overview", "report"]

_LEGEND = """\
Mean ± half the 95 % interval (Student's) over the seeds. *better than base*: how much better the first score is than
that of the same base optimizer without the ascent, paired by seed, whether it is to be large or small; *p*: of the
two-sided paired t-test, times the number of methods with a base. *(4 of 5)*: the others diverged. Curvature is that of
the training loss after training, in the metric of the manifolds: geometric means over the seeds of what is positive.
*off the manifold*: the largest violation of the equation that defines the manifold, over the seeds, at the end of
training, as a part of what is tolerated."""

#: Scores as tables name them.
_NAMES = {
    "accuracy": "accuracy, %",
    "long_accuracy": "twice as long, %",
    "train_accuracy": "train, %",
    "error": "squared error × 100",
    "long_error": "twice as long × 100",
    "train_error": "train × 100",
    "map": "MAP, %",
    "mean_rank": "mean rank",
}
_CURVATURE = {"gradient_norm": "gradient norm", "trace": "Hessian trace", "top_eigenvalue": "top eigenvalue"}


def report(
    title: str, cases: Sequence[Sequence[Entry]], missing: Sequence[str], protocol: Protocol, directory: Path
) -> str:
    """Write the figure, and say all in Markdown.

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
    directory : Path
        Where the figure goes; and ``summary.md``, for the README.

    Returns
    -------
    str
        The report.
    """
    summary = "\n\n".join([overview(cases), against_base(cases)])
    (directory / "summary.md").write_text(summary + "\n", encoding="utf-8")
    draw_against_base(cases, directory / "minus-base.svg")
    parts = [f"# {title}", _introduction(cases, missing, protocol), "## Scores", overview(cases)]
    parts += ["## What the ascent is worth", _WORTH, against_base(cases)]
    parts += ["![Score minus that of the base](minus-base.svg)"]
    parts += ["## Case by case", _LEGEND]
    labels = {case[0].case.name: case[0].case.label for case in cases}
    for case in cases:
        by = case[0].case.tuned_with
        shared = [f"Settings were chosen on: {labels.get(by, by)}."] if by else []
        parts += [f"### {case[0].case.label}", *shared, case_table(case)]
    return "\n\n".join(parts)


_WORTH = """\
Score of each method with an ascent minus that of its base without, and of RSAM minus the projected ascent, in points
(of errors: their decrease), with simultaneous 95 % intervals over the rows of a column (Bonferroni), and p-values
corrected alike. The figure shows the first four. A base was tuned over its momentum (or beta 1), an ascent over rho at
a fixed one, so that a difference holds that choice too; and an ascent takes twice the gradient evaluations."""


def _introduction(cases: Sequence[Sequence[Entry]], missing: Sequence[str], protocol: Protocol) -> str:
    rows = [row for case in cases for entry in case for row in entry.rows]
    settings = len(cases[0][0].tuned.scores)
    finished = [row for row in rows if not row.diverged]
    worst = max((row.violation for row in finished), default=math.nan)
    off = sum(row.violation > 1 for row in finished)
    chosen = (
        "Learning rate and one knob of each method were chosen on validation data (for reconstruction, on the edges "
        f"that are reconstructed) from {settings} settings, all with {len(protocol.first)} seed, the best "
        f"{min(protocol.kept, settings)} with {len(protocol.second)} more; the same for every method, with other seeds "
        "than those reported. "
        if settings > 1
        else "Settings were not tuned. "
    )
    kept = "All that did not diverge stayed on their manifolds" if not off else f"**{off} left their manifolds**"
    text = (
        f"{len(rows)} final trials, {len(protocol.final)} seeds a method and case. {chosen}"
        "Methods of a seed share initial weights, data, batches and negative samples. An ascent costs a second "
        f"gradient evaluation a step. {kept}: the largest violation at the end of a trial is {worst:.2g} of what is "
        f"tolerated ({TOLERANCE[torch.float32]:g} in single precision, {TOLERANCE[torch.float64]:g} in double). torch "
        f"{', '.join(sorted({row.torch_version for row in rows}))}, {', '.join(sorted({row.device for row in rows}))}; "
        f"at most {max(row.megabytes for row in rows):.0f} MB a process."
    )
    return text + (f" Not complete yet: {'; '.join(missing)}." if missing else "")


def values(entry: Entry, score: str = "") -> list[float]:
    """A score of each seed, as tables show it; nan of trials that diverged."""
    name = score or entry.case.score
    unit = 1.0 if name == "mean_rank" else entry.case.unit
    return [unit * row.scores.get(name, math.nan) for row in entry.rows]


def improvement(entry: Entry, base: Entry) -> list[float]:
    """How much better than its base a method is, seed by seed."""
    sign = -1 if entry.case.smaller else 1
    return [sign * (a - b) for a, b in zip(values(entry), values(base), strict=True)]


def _known(numbers: Sequence[float]) -> list[float]:
    return [number for number in numbers if not math.isnan(number)]


def _mean(numbers: Sequence[float], spec: str) -> str:
    known = _known(numbers)
    if not known:
        return "diverged"
    return f"{t_interval(known):{spec}}" + ("" if len(known) == len(numbers) else f" ({len(known)} of {len(numbers)})")


def overview(cases: Sequence[Sequence[Entry]]) -> str:
    """The score of every method on every case."""
    rows = [
        (case[0].case.label, _NAMES[case[0].case.score], *(_mean(values(entry), ".1f") for entry in case))
        for case in cases
    ]
    return markdown_table(("case", "score", *(METHODS[entry.method].label for entry in cases[0])), rows)


def _compared(cases: Sequence[Sequence[Entry]], method: str, other: str) -> list[Comparison | None]:
    """A method with another, on each case; None where each seed of one of them diverged."""
    found = []
    for case in cases:
        of = {entry.method: entry for entry in case}
        known = _known(improvement(of[method], of[other]))
        found.append(compare(known, len(cases)) if known else None)
    return found


def against_base(cases: Sequence[Sequence[Entry]]) -> str:
    """What the ascent is worth, and what its geometry is, with simultaneous intervals over the cases."""
    pairs = [(name, method.base) for name, method in METHODS.items() if method.base]
    pairs += [(name, name.replace("rsam", "projected_sam")) for name in METHODS if name.startswith("rsam")]
    columns = [[_shown(c) for c in _compared(cases, *pair)] for pair in pairs]
    rows = [(case[0].case.label, *cells) for case, cells in zip(cases, zip(*columns, strict=True), strict=True)]
    return markdown_table(("case", *(f"{METHODS[a].label} − {METHODS[b].label}" for a, b in pairs)), rows)


def _shown(comparison: Comparison | None) -> str:
    if comparison is None:
        return "diverged"
    if math.isnan(comparison.p):
        return f"{comparison.interval.mean:.2f}"
    return f"{comparison.simultaneous:.2f} (p {p_value(comparison.p)})"


def case_table(entries: Sequence[Entry]) -> str:
    """Methods on a case."""
    of = {entry.method: entry for entry in entries}
    score = entries[0].case.score
    scores = [score, *(name for name in _NAMES if name != score and name in _all_scores(entries))]
    sharp = sum(bool(METHODS[name].base) for name in of)
    rows = []
    for name, entry in of.items():
        method = METHODS[name]
        known = _known(improvement(entry, of[method.base])) if method.base else []
        against = compare(known, sharp) if known else None
        lr, knob = entry.tuned.setting.lr, entry.tuned.setting.knob
        rows.append(
            (
                method.label,
                *(_mean(values(entry, s), ".2f") for s in scores),
                "" if against is None else f"{against.interval:.2f}",
                "" if against is None else p_value(against.p),
                *(f"{geometric_mean([row.curvature.get(c, math.nan) for row in entry.rows]):.3g}" for c in _CURVATURE),
                f"{lr:g}",
                f"{method.knob} {knob:g}",
                f"{max(row.violation for row in entry.rows):.0e}",
                f"{1000 * median(row.seconds_per_step for row in entry.rows):.1f}",
                str(sum(row.diverged for row in entry.rows) or ""),
            )
        )
    header = (
        "method", *(_NAMES[s] for s in scores), "better than base", "p", *_CURVATURE.values(), "lr", "knob",
        "off the manifold", "ms a step", "diverged",
    )  # fmt: skip
    return markdown_table(header, rows)


def _all_scores(entries: Sequence[Entry]) -> set[str]:
    return {name for entry in entries for row in entry.rows for name in row.scores}


def draw_against_base(cases: Sequence[Sequence[Entry]], path: Path) -> None:
    """Draw what the ascent is worth on each case, with its simultaneous interval."""
    methods = [name for name, method in METHODS.items() if method.base]
    figure = Figure(figsize=(7, 1.2 + 0.5 * len(cases)), layout="constrained")
    axes = figure.subplots()
    for i, method in enumerate(methods):
        for place, comparison in enumerate(_compared(cases, method, METHODS[method].base)):
            if comparison is not None and not math.isnan(comparison.p):
                interval = comparison.simultaneous
                axes.errorbar(
                    interval.mean,
                    place + 0.18 * (i - (len(methods) - 1) / 2),
                    xerr=interval.half_width,
                    fmt="o",
                    color=COLOURS[i],
                    markersize=3.5,
                    capsize=2,
                    label=METHODS[method].label,
                )
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(cases)), [case[0].case.label for case in cases], fontsize="small")
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    axes.set_xlabel("better than the base by, points")
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=2, fontsize="small")
    save_svg(figure, path)
