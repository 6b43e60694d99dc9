"""The report: differences as a forest, verdicts, and the settings behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.forest import Group, Line, draw_forest
from benchmarks.report.intervals import Comparison, Interval, t_interval
from benchmarks.report.opening import ANSWER, DETAILS, opening
from benchmarks.report.table import markdown_table
from benchmarks.run import Run
from benchmarks.studies.comparison.cases import Score
from benchmarks.studies.constrained.contest import Found, by_noise
from benchmarks.studies.constrained.design import ASCENT, BASE, Design
from benchmarks.studies.constrained.rules import ASKED, DECIDING, KERNELS, RULES, Answer, answer, pooled
from benchmarks.studies.study import preliminary
from benchmarks.workloads.samples import as_samples

__all__ = ["answers", "report"]

TITLE = "The ascent as the regulariser of constrained kernels"
QUESTION = (
    "Kernels on spheres and Stiefel manifolds cannot decay: does RSAM's ascent help them more than weight decay of the "
    "other parameters, label smoothing, dropout, early stopping and twice the epochs?"
)
_NAMES = {ASCENT: "RSAM", BASE: "RiemannianSGD"}
#: Differences that are tabulated, of cases that are found.
_COLUMNS = {
    "remedies": Found.against_remedy,
    "remedies, best setting of each": Found.at_best,
    "same setting without ascent": Found.against_base,
}


def report(
    found: Sequence[Found],
    added: Sequence[Found],
    missing: Sequence[str],
    design: Design,
    asked: Mapping[str, Any] | None,
    costs: str,
    directory: Path,
) -> str:
    """Write the picture, and say all in Markdown.

    Parameters
    ----------
    found : sequence of Found
        The complete cases, at least one.
    added : sequence of Found
        Cases with an ascent on top of the best remedies.
    missing : sequence of str
        Labels of the others.
    design : Design
        What was wanted.
    asked : mapping, optional
        The RSAM that the study ``cheap`` recommends, as ``design.recommended``; None if it has not yet.
    costs : str
        What all runs took.
    directory : Path
        Where the picture goes.
    """
    judged = answers(found, design)
    _draw(found, judged, directory / ANSWER)
    sentences = [_sentence(kernels, one) for kernels, one in judged.items()]
    lacking = [name for kernels, name in KERNELS.items() if kernels not in judged]
    sentences += [f"**No verdict yet** on {name}." for name in lacking]
    sentences += _on_top(added)
    warnings = preliminary(missing)
    if asked is not None and asked != design.recommended:
        warnings.append(f"**Not by the rules**: the RSAM that the study `cheap` recommends is {_named(asked)}.")
    picture = "Test accuracy of RSAM minus RiemannianSGD with its best remedies, by data set, noise and manifold"
    return "\n\n".join(
        [
            *opening(TITLE, QUESTION, picture, [*warnings, *sentences]),
            DETAILS,
            "## Differences",
            "Student's 95 % intervals over seeds, each with its own training images; not corrected. Those in the first "
            "lines are simultaneous over the two manifolds. *on top*: added after the runs, with the rho that it took.",
            _differences(found, added),
            "## Test accuracy, %",
            "With early stopping: mean over the two settings of RSAM and of RiemannianSGD, and the best one of RSAM "
            "without its ascent. *end*: a method's best setting at the end of training. Intervals as above.",
            _accuracies(found),
            "## Settings that were chosen",
            _which(design),
            _settings(found, design),
            "## Rules, written beforehand",
            RULES,
            costs,
        ]
    )


def _which(design: Design) -> str:
    """Say which RSAM it is."""
    ends = "*at an end*: in the last sixteenth of a range, towards an end that is not natural."
    return f"RSAM is {_named(design.recommended)}. {ends}"


def _named(options: Mapping[str, Any]) -> str:
    """Name a kind of RSAM by its fields of a run."""
    return (
        "the one with " + ", ".join(f"`{k}={v!r}`" for k, v in options.items())
        if options
        else "the one that ascends from the whole batch in every step"
    )


def answers(found: Sequence[Found], design: Design) -> dict[str, Answer]:
    """Judge each manifold of which the deciding cases are there on all data sets."""
    judged = {}
    for kernels in KERNELS:
        own = [f for f in found if f.case.kernels == kernels]
        remedy, base = (
            {noise: by_set for noise, by_set in by_noise(own, one).items() if set(by_set) == set(design.datasets)}
            for one in (Found.against_remedy, Found.against_base)
        )
        if set(DECIDING) <= remedy.keys():
            judged[kernels] = answer(remedy, base)
    return judged


def _sentence(kernels: str, found: Answer) -> str:
    verdict = {
        "better": "is better than the best remedy",
        "not better": "is not better than the best remedy",
        "undecided": "against the best remedy is undecided",
    }[found.verdict]
    equal = "helps" if found.at_equal_settings else "is not shown to help"
    return (
        f"**On {KERNELS[kernels]} the ascent {verdict}**: {_at(found.against_remedy)} (required: more than {ASKED}). "
        f"At equal settings it {equal}: {_at(found.against_base)}."
    )


def _at(found: dict[float, Comparison]) -> str:
    return ", ".join(
        f"{found[noise].simultaneous:.2f} points with {100 * noise:.0f} % wrong labels" for noise in DECIDING
    )


def _draw(found: Sequence[Found], judged: dict[str, Answer], path: Path) -> None:
    groups = []
    for kernels, name in KERNELS.items():
        own = [f for f in found if f.case.kernels == kernels]
        lines = [_line(f) for f in own]
        if kernels in judged:
            lines += [_shown("both sets", noise, c.simultaneous) for noise, c in judged[kernels].against_remedy.items()]
        if lines:
            verdict = judged[kernels].verdict if kernels in judged else ""
            groups.append(
                Group(f"{name}, by wrong labels", lines, "RSAM − RiemannianSGD with remedies, points", verdict, ASKED)
            )
    draw_forest(groups, path)


def _line(f: Found) -> Line:
    return _shown(f.case.dataset, f.case.label_noise, t_interval(f.against_remedy()))


def _shown(place: str, noise: float, interval: Interval) -> Line:
    return Line(f"{place}, {100 * noise:.0f} %", interval, f"{interval.mean:+.2f}")


def _differences(found: Sequence[Found], added: Sequence[Found]) -> str:
    """Tabulate differences case by case and over both data sets, with intervals that are not corrected."""
    on_top = {a.case: a for a in added}
    rows = []
    for f in found:
        cells = [f"{t_interval(one(f)):.2f}" for one in _COLUMNS.values()]
        extra = on_top.get(f.case)
        rhos = "" if extra is None else ", ".join(f"{setting.rho:g}" for setting in extra.settings[ASCENT])
        cells.append("" if extra is None else f"{t_interval(extra.against_remedy()):.2f} (rho {rhos})")
        rows.append((f.case.label, *cells))
    for kernels, name in KERNELS.items():
        own = [f for f in found if f.case.kernels == kernels]
        columns = [_both(own, one) for one in _COLUMNS.values()]
        columns.append(_both([f for f in added if f.case.kernels == kernels], Found.against_remedy))
        for noise in columns[0]:
            cells = [f"{by[noise]:.2f}" if noise in by else "" for by in columns]
            rows.append((f"both, {100 * noise:.0f} % wrong labels, {name}", *cells))
    return markdown_table(("RSAM minus, points", *_COLUMNS, "on top of the remedies"), rows)


def _both(found: Sequence[Found], difference: Callable[[Found], list[float]]) -> dict[float, Interval]:
    """Average differences on one manifold over data sets, at the levels of noise that are there on more than one."""
    arranged = by_noise(found, difference)
    return {noise: t_interval(pooled(by_set)) for noise, by_set in arranged.items() if len(by_set) > 1}


def _on_top(added: Sequence[Found]) -> list[str]:
    """Say what the ascent adds to the best settings without one."""
    said = []
    for kernels, name in KERNELS.items():
        of_noise = _both([f for f in added if f.case.kernels == kernels], Found.against_remedy)
        if set(DECIDING) <= of_noise.keys():
            points = ", ".join(f"{of_noise[n]:.2f} with {100 * n:.0f} % wrong labels" for n in DECIDING)
            said.append(f"{points} on {name}")
    what = "Added after the runs, without a verdict: on top of the best settings of RiemannianSGD the ascent adds"
    return [f"{what} {'; '.join(said)} (points, 95 % intervals)."] if said else []


def _accuracies(found: Sequence[Found]) -> str:
    """Tabulate accuracies where networks are stopped, and at their end."""
    rows = []
    for f in found:
        cells = [t_interval(f.of(method)) for method in (ASCENT, BASE)]
        cells.append(t_interval(f.scores(f.same)))
        cells += [t_interval(f.scores(f.settings[m][0], Score(worst=0.1).of)) for m in (ASCENT, BASE)]
        rows.append((f.case.label, *(f"{interval:.1f}" for interval in cells)))
    header = ("case", "RSAM", "RiemannianSGD", "RSAM's setting, no ascent", "RSAM, end", "RiemannianSGD, end")
    return markdown_table(header, rows)


def _settings(found: Sequence[Found], design: Design) -> str:
    rows = []
    for f in found:
        for method in (ASCENT, BASE):
            for setting in f.settings[method]:
                score = f"{f.tuned[method].scores[setting]:.1f}"
                rows.append((f.case.label, _NAMES[method], *_fields(setting, design), score))
    header = (
        "case",
        "method",
        "lr",
        "× kernels",
        "decay",
        "rho",
        "smoothing",
        "dropout",
        "epochs",
        "at an end",
        "validation, %",
    )
    return markdown_table(header, rows)


def _fields(setting: Run, design: Design) -> list[str]:
    workload = as_samples(setting.workload)
    numbers = (setting.lr, setting.kernel_rate, setting.weight_decay, setting.rho)
    remedies = (workload.label_smoothing, workload.dropout, setting.epochs)
    return [*(f"{number:.3g}" for number in (*numbers, *remedies)), ", ".join(design.ends(setting))]
