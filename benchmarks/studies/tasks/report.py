"""The report of a comparison on tasks: what to conclude, tables, and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report.curves import COLOURS
from benchmarks.report.intervals import t_interval
from benchmarks.report.svg import save_svg
from benchmarks.runs.tuning import Protocol
from benchmarks.studies.study import preliminary
from benchmarks.studies.tasks.cases import NOTES
from benchmarks.studies.tasks.protocol import Entry
from benchmarks.studies.tasks.tables import RULE, by_case, case_table, conclusions, improvement, overview
from benchmarks.tasks.methods import METHODS

__all__ = ["report"]

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


def report(
    title: str,
    cases: Sequence[Sequence[Entry]],
    missing: Sequence[str],
    asked: int,
    protocol: Protocol,
    trials: str,
    directory: Path,
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
    asked : int
        Groups of all cases, complete or not.
    protocol : Protocol
        Seeds.
    trials : str
        What all trials took, and whether they stayed on their manifolds.
    directory : Path
        Where the figure goes; and ``summary.md``, for the README.

    Returns
    -------
    str
        The report.
    """
    number = sum(len(entry.rows) for case in cases for entry in case)
    seeds = f"{number} final trials, {len(protocol.final)} seeds a method and case. {trials}"
    summary = [*preliminary(missing), conclusions(cases, asked), overview(cases), by_case(cases), seeds]
    (directory / "summary.md").write_text("\n\n".join(summary) + "\n", encoding="utf-8")
    draw_by_case(cases, directory / "by-case.svg")
    parts = [f"# {title}", *preliminary(missing), f"{seeds} {_introduction(cases, protocol)}"]
    parts += ["## What the ascent is worth", RULE, _TUNED, conclusions(cases, asked)]
    parts += ["## Scores", overview(cases)]
    parts += ["## Case by case", _BY_CASE, by_case(cases), "![Score minus that of the base](by-case.svg)", _LEGEND]
    labels = {case[0].case.name: case[0].case.label for case in cases}
    for entries in cases:
        case = entries[0].case
        shared = f" Settings were chosen on: {labels.get(case.tuned_with, case.tuned_with)}." if case.tuned_with else ""
        parts += [f"### {case.label}", f"Seeds vary: {NOTES[case.template.task]}.{shared}", case_table(entries)]
    return "\n\n".join(parts)


def _introduction(cases: Sequence[Sequence[Entry]], protocol: Protocol) -> str:
    rows = [row for case in cases for entry in case for row in entry.rows]
    settings = len(cases[0][0].tuned.scores)
    chosen = (
        "Learning rate and one knob of each method were chosen on validation data (for reconstruction, on the edges "
        f"that are reconstructed) from {settings} settings, all with {len(protocol.first)} seed, the best "
        f"{min(protocol.kept, settings)} with {len(protocol.second)} more; the same for every method, with other seeds "
        "than those reported. "
        if settings > 1
        else "Settings were not tuned. "
    )
    return (
        f"{chosen}At a seed all methods share initial weights, data, batches and negative samples. An ascent costs a "
        "second gradient evaluation per step, so the bases are also trained for twice the epochs, tuned anew for that. "
        f"torch {', '.join(sorted({row.torch_version for row in rows}))}, "
        f"{', '.join(sorted({row.device for row in rows}))}; "
        f"at most {max(row.megabytes for row in rows):.0f} MB a process."
    )


def draw_by_case(cases: Sequence[Sequence[Entry]], path: Path) -> None:
    """Draw what each ascent is worth on each case, with its interval; a panel for each unit of scores."""
    panels: dict[str, list[Sequence[Entry]]] = {}
    for entries in cases:
        unit = "points" if entries[0].case.unit > 1 else "powers of ten of the error"
        panels.setdefault(unit, []).append(entries)
    sizes = [len(members) + 1 for members in panels.values()]
    figure = Figure(figsize=(7, 1.2 + 0.5 * sum(sizes)), layout="constrained")
    grid = figure.subplots(len(panels), squeeze=False, height_ratios=sizes)[:, 0]
    for axes, (unit, members) in zip(grid, panels.items(), strict=True):
        _draw_panel(axes, members)
        axes.set_xlabel(f"better than the base by ({unit})", fontsize="small")
    labelled: dict[str, Artist] = {}
    for axes in grid:
        handles, labels = axes.get_legend_handles_labels()
        labelled |= dict(zip(labels, handles, strict=True))
    figure.legend(labelled.values(), labelled.keys(), loc="outside upper center", ncols=2, fontsize="small")
    save_svg(figure, path)


def _draw_panel(axes: Axes, cases: Sequence[Sequence[Entry]]) -> None:
    methods = [name for name, method in METHODS.items() if method.base]
    for i, method in enumerate(methods):
        for place, entries in enumerate(cases):
            of = {entry.method: entry for entry in entries}
            better = [b for b in improvement(of[method], of[METHODS[method].base]) if not math.isnan(b)]
            if len(better) > 1:
                interval = t_interval(better)
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
    axes.set_yticks(range(len(cases)), [entries[0].case.label for entries in cases], fontsize="small")
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
