"""Report the ablations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.report.forest import Group, Line, draw_forest
from benchmarks.report.intervals import Interval, geometric, judged, t_interval
from benchmarks.report.opening import ANSWER, DETAILS, opening
from benchmarks.report.table import markdown_table
from benchmarks.run import Row, Run
from benchmarks.runs.measurement import MEASURES
from benchmarks.studies.ablations.trials import (
    ASCENTS,
    BASE_OF,
    COMPARED,
    Trials,
    as_base,
    as_decayed,
    ascent_settings,
    at,
)
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.images.claims import CURVATURES, accuracy, ratios
from benchmarks.studies.images.report import of_case
from benchmarks.studies.study import preliminary

__all__ = ["decomposition", "report", "same_settings", "tuning", "without"]

#: Constrained counterparts of SGD and SAM.
_COUNTERPARTS = {"spheres": ("riemannian_sgd", "rsam"), "Stiefel": ("riemannian_sgd_stiefel", "rsam_stiefel")}
#: Differences of the table, and what each is worth.
_PARTS = {
    "RiemannianSGD − SGD": "Constraint without an ascent",
    "RSAM − RiemannianSGD": "Ascent under the constraint",
    "SAM − SGD": "Ascent without the constraint",
    "RSAM − SAM": "Constraint and ascent together",
}

_QUESTION = "Do differences between RSAM and SAM come from the constraint, the geometry of the ascent, or tuning?"
_INTRODUCTION = """\
Means ± half the 95 % Student interval over seeds; differences are paired by seed. Intervals are not corrected for their
number, since they explain and decide no claim. The ablations were designed after the first results of the comparison
(the study `optimizers`) had been seen. In addition to the comparison,"""
_DECOMPOSITION = """\
The difference between RSAM and SAM, in points of test accuracy, splits into the effects of the constraint and of the
ascent: RSAM − SAM = (RiemannianSGD − SGD) + (RSAM − RiemannianSGD) − (SAM − SGD). Each method has its own tuned
settings."""
_WITHOUT = """\
Tuned methods differ in their settings too. Here only the ascent or the penalty is removed, at the same learning rate
and weight decay. Columns: test accuracy with it minus without it, and curvature with it over curvature without it
(geometric means over seeds). In the comparison, methods without an ascent or penalty were also tuned over weight decay,
while the others had the default, 5e-4. The last column is what those others gain at the decay chosen for their base."""
_SAME = """\
Every kind of ascent, and every way of carrying the gradient back, at each setting that tuning chose for one of them.
Where they agree here, their differences in the comparison come from the settings."""
_TUNING = """\
Tuning keeps a few settings and chooses one by validation accuracy. Columns: test accuracy of each method at the chosen
setting, its mean over the kept settings, and the lowest and highest of these; then the difference from SAM at the
chosen settings, and that of the means. The spread shows how much noise in the choice can change; intervals over seeds
do not include it."""


def report(
    cases: Sequence[Trials], missing: Sequence[str], own: Sequence[Sequence[Entry]], cost: str, directory: Path
) -> str:
    """Write figures, and say all in Markdown.

    Parameters
    ----------
    cases : sequence of Trials
        Those of the comparison, and those of the ablations.
    missing : sequence of str
        Labels of those that are not complete.
    own : sequence of sequences of Entry
        Cases of the ablations, tables and figures of which are shown.
    cost : str
        What it took beside the comparison.
    directory : Path
        Where figures go.

    Returns
    -------
    str
        The report.
    """
    draw_forest(forest(cases), directory / ANSWER)
    parts = ["## The constraint and the ascent", _DECOMPOSITION, decomposition(cases)]
    parts += ["## Effect of ascent and penalty at the same settings", _WITHOUT, without(cases)]
    parts += ["## Kinds of ascent at the same settings", _SAME, same_settings(cases)]
    parts += ["## Effect of the choice of settings", _TUNING, tuning(cases)]
    first = opening(
        "Sources of the difference between RSAM and SAM",
        " ".join([_QUESTION, *preliminary(missing)]),
        "RSAM minus SAM on each case, next to the effect of the constraint alone",
        sentences(cases),
    )
    details = [part for case in own for part in of_case(case, directory)]
    return "\n\n".join([*first, f"{_INTRODUCTION} {cost}", *parts, DETAILS, *details])


def _accuracies(rows: Sequence[Row]) -> list[float]:
    return [accuracy(row) for row in rows]


def _interval(one: Sequence[float], other: Sequence[float]) -> Interval:
    return t_interval([a - b for a, b in zip(one, other, strict=True)])


def _minus(one: Sequence[float], other: Sequence[float]) -> str:
    return f"{_interval(one, other):.2f}"


def _label(case: Trials) -> str:
    return case.entries[0].case.label


@dataclass(frozen=True)
class _Parts:
    """RSAM − SAM on a case with kernels on one manifold, and its parts."""

    case: str
    manifold: str
    differences: dict[str, Interval]


def _parts(cases: Sequence[Trials]) -> list[_Parts]:
    parts = []
    for case in cases:
        of = {name: _accuracies(entry.rows) for name, entry in case.by_method.items()}
        for manifold, (base, sharp) in _COUNTERPARTS.items():
            if {base, sharp} <= of.keys():
                pairs = dict(zip(_PARTS, ((base, "sgd"), (sharp, base), ("sam", "sgd"), (sharp, "sam")), strict=True))
                intervals = {name: _interval(of[a], of[b]) for name, (a, b) in pairs.items()}
                parts.append(_Parts(_label(case), manifold, intervals))
    return parts


def decomposition(cases: Sequence[Trials]) -> str:
    """Show what the constraint is worth, and the ascent with and without it."""
    rows = [(p.case, p.manifold, *(f"{interval:.2f}" for interval in p.differences.values())) for p in _parts(cases)]
    return markdown_table(("case", "kernels on", *_PARTS), rows)


def forest(cases: Sequence[Trials]) -> list[Group]:
    """Lay out RSAM − SAM beside the constraint alone, case by case."""
    groups: dict[str, list[Line]] = {}
    for parts in _parts(cases):
        for name, shown in (("RSAM − SAM", "RSAM − SAM"), ("RiemannianSGD − SGD", "constraint alone")):
            interval = parts.differences[name]
            groups.setdefault(parts.case, []).append(Line(f"{parts.manifold}: {shown}", interval, f"{interval:.2f}"))
    return [Group(case, lines, "test accuracy, points") for case, lines in groups.items()]


def sentences(cases: Sequence[Trials]) -> list[str]:
    """Say of each part of the difference how often its interval leaves 0, one sentence each."""
    all_parts = _parts(cases)
    answers = []
    for name, meaning in _PARTS.items():
        # SAM − SGD is the same on every manifold of a case
        intervals = {(parts.case, parts.differences[name]) for parts in all_parts}
        outcomes = [judged(interval) for _, interval in intervals]
        above, below = outcomes.count("better"), outcomes.count("worse")
        answers.append(f"**{meaning}** ({name}): of {len(outcomes)} intervals, {above} lie above 0 and {below} below.")
    differences = [interval for _, intervals in _against_rsam(cases) for interval in intervals.values()]
    apart = sum(judged(interval) != "undecided" for interval in differences)
    most = max((abs(interval.mean) for interval in differences), default=math.nan)
    return [
        *answers,
        f"**Geometry of the ascent at the same settings:** {apart} of {len(differences)} intervals exclude 0, and no "
        f"other kind of ascent differs from RSAM by more than {most:.2f} points on average.",
    ]


def without(cases: Sequence[Trials]) -> str:
    """Show what ascent and penalty change of accuracy and curvature, all else equal, and what weight decay does."""
    rows = []
    for case in cases:
        entry_of = case.by_method
        for name, base in BASE_OF.items():
            if not {name, base} <= entry_of.keys():
                continue
            ours, theirs = entry_of[name].rows, case.rows[as_base(entry_of, name)]
            changed = [geometric(ratios(ours, theirs, m)) for m in CURVATURES]
            decayed = "" if name not in COMPARED else _gain(case, as_decayed(entry_of, name), entry_of[name])
            rows.append(
                (
                    _label(case),
                    entry_of[name].contestant.label,
                    _minus(_accuracies(ours), _accuracies(theirs)),
                    *changed,
                    decayed,
                )
            )
    header = (
        "case",
        "method",
        "with − without",
        *(f"{MEASURES[m].label}, ratio" for m in CURVATURES),
        "base's decay: gain",
    )
    return markdown_table(header, rows)


def _gain(case: Trials, setting: Run, entry: Entry) -> str:
    """Compare accuracy at another setting with that at the chosen one."""
    if setting == entry.tuned.setting:
        return "the same"
    return f"{setting.weight_decay:g}: {_minus(_accuracies(case.rows[setting]), _accuracies(entry.rows))}"


def _against_rsam(cases: Sequence[Trials]) -> list[tuple[tuple[str, ...], dict[str, Interval]]]:
    """List by case, manifold and setting: these with RSAM's accuracy, and by ascent how much better RSAM is."""
    rows: list[tuple[tuple[str, ...], dict[str, Interval]]] = []
    for case in cases:
        entry_of = case.by_method
        for manifold, names in ASCENTS.items():
            for lr, rho in ascent_settings(case.entries, manifold):
                of = {n: _accuracies(case.rows[at(entry_of[n], lr, rho)]) for n in names if n in entry_of}
                first, *others = of
                setting = (_label(case), manifold, f"{lr:g}", f"{rho:g}", f"{t_interval(of[first]):.2f}")
                rows.append((setting, {name: _interval(of[first], of[name]) for name in others}))
    return rows


def same_settings(cases: Sequence[Trials]) -> str:
    """Show the accuracy of RSAM, and by how much it beats other ways of ascending at the same settings."""
    rows = [
        (*setting, *(f"{against[name]:.2f}" if name in against else "" for name in ASCENTS[setting[1]][1:]))
        for setting, against in _against_rsam(cases)
    ]
    ways = ("pullback", "project", "ambient ascent")
    return markdown_table(("case", "kernels on", "lr", "rho", "RSAM, %", *(f"RSAM − {way}" for way in ways)), rows)


def tuning(cases: Sequence[Trials]) -> str:
    """Show accuracy over the settings that tuning kept."""
    rows = []
    for case in cases:
        entry_of = case.by_method
        kept = {n: [_accuracies(case.rows[s]) for s in entry_of[n].tuned.kept] for n in COMPARED if n in entry_of}
        means = {name: [fmean(of_seed) for of_seed in zip(*values, strict=True)] for name, values in kept.items()}
        for name, values in kept.items():
            chosen = _accuracies(entry_of[name].rows)
            of_settings = [fmean(of_setting) for of_setting in values]
            sam = name == "sam"
            rows.append(
                (
                    _label(case),
                    entry_of[name].contestant.label,
                    f"{t_interval(chosen):.2f}",
                    f"{t_interval(means[name]):.2f}",
                    f"{min(of_settings):.2f}",
                    f"{max(of_settings):.2f}",
                    "" if sam else _minus(chosen, _accuracies(entry_of["sam"].rows)),
                    "" if sam else _minus(means[name], means["sam"]),
                )
            )
    header = ("case", "method", "chosen, %", "mean of kept, %", "lowest", "highest", "chosen − SAM", "mean − SAM")
    return markdown_table(header, rows)
