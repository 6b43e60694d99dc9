"""The report: regrets as a picture, verdicts, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.methods import METHODS
from benchmarks.report.intervals import Interval
from benchmarks.report.opening import ANSWER, DETAILS, opening
from benchmarks.report.table import markdown_table
from benchmarks.studies.one_rho.design import BASES, CANDIDATES, CENTRE, Design, Level
from benchmarks.studies.one_rho.figures import Block, draw_regrets
from benchmarks.studies.one_rho.regret import Regrets, Table, choose, maximum, mean, percentile, resample
from benchmarks.studies.one_rho.rules import BELOW, LARGEST, PEERS, RULES, Answer, answers
from benchmarks.studies.study import preliminary
from benchmarks.workloads.images import Kernels

__all__ = ["Reading", "report"]

TITLE = "One rho for everything"
QUESTION = (
    "How much accuracy is lost by keeping one rho when labels, decay, learning rate, network, epochs or batches "
    "change, and is less lost if rho is an angle?"
)
_SUMMARY = ("regret, points", "rho", "mean", "90th percentile", "maximum", "largest at")
_LABELS = {candidate.name: candidate.label for candidate in CANDIDATES} | {
    name: f"no ascent, {METHODS[name].label}" for name in BASES.values()
}

_NUMBERS = """\
Numbers are points of validation accuracy below the best of all methods and radii at a level, corrected for the
selection of the best of many noisy means. Intervals are normal 95 % intervals over seeds with their training examples;
those in the verdicts are simultaneous over the judged methods. They do not cover other levels or data sets."""


@dataclass(frozen=True)
class Reading:
    """What is known of a data set.

    Attributes
    ----------
    design : Design
        What was wanted.
    first : dict of Level to Table
        Accuracies of the levels that are complete, with the seeds that all networks have.
    again : dict of Level to Table
        Those with further seeds.
    missing : list of str
        Levels that are not complete.
    rates : mapping
        Learning rate of each base; empty if not known.
    """

    design: Design
    first: Mapping[Level, Table]
    again: Mapping[Level, Table]
    missing: list[str]
    rates: Mapping[Kernels, float]

    @property
    def tables(self) -> dict[Level, Table]:
        """Accuracies that count: where there are further seeds these alone."""
        return {level: self.again.get(level, table) for level, table in self.first.items()}


def report(
    development: Reading, held_back: Sequence[Reading], chosen: Mapping[str, float], costs: str, directory: Path
) -> str:
    """Write the picture, and say all in Markdown.

    Parameters
    ----------
    development : Reading
        Of the data set that radii are chosen on, with one level at least.
    held_back : sequence of Reading
        Of the sets that chosen radii are read on; empty before they are chosen.
    chosen : mapping of str to float
        Radii that are written down, if they are.
    costs : str
        What all runs took.
    directory : Path
        Where the picture goes.
    """
    found = {c.name: choose([*development.tables.values()], c.name) for c in development.design.candidates}
    rhos = chosen or found
    read = [reading for reading in held_back if reading.tables]
    shown = read or [development]
    tables = [table for reading in shown for table in reading.tables.values()]
    beside = _with_bases(tables, rhos)
    _draw(shown, beside, directory)
    missing = [f"{level} of {r.design.label}" for r in (development, *held_back) for level in r.missing]
    pooled = resample(tables, rhos) if read else None
    picture = f"Regret of one rho by method and level, {' and '.join(reading.design.label for reading in shown)}"
    if missing:
        judged = ["**No verdict yet**: the rules require all levels of all sets."]
    else:
        judged = _verdicts(pooled) if pooled else [_not_yet(found)]
    sentences = [*_other(found, chosen), *judged]
    parts = [*opening(TITLE, QUESTION, picture, [*preliminary(missing), *sentences]), DETAILS]
    parts += [_NUMBERS]
    if pooled and len(read) > 1:
        labels = [f"{level.label}, {r.design.label}" for r in read for level in r.tables]
        parts += ["## Both sets", _summary(tables, beside, labels)]
    for reading in (*read, development):
        parts += _of(reading, rhos)
    parts += ["## How the radii were chosen", _choices(development, found)]
    return "\n\n".join([*parts, "## Rules, written beforehand", RULES, costs])


def _draw(shown: Sequence[Reading], rhos: Mapping[str, float], directory: Path) -> None:
    blocks = []
    for reading in shown:
        regrets = resample([*reading.tables.values()], rhos)
        rows = [[regrets.at(method, number).mean for method in rhos] for number in range(len(reading.tables))]
        blocks.append(Block(reading.design.label, [level.label for level in reading.tables], rows))
    every = resample([table for reading in shown for table in reading.tables.values()], rhos)
    statistics = {"mean": mean, "90th percentile": percentile, "maximum": maximum}
    rows = [[every.estimate(one(every.row(method))).mean for method in rhos] for one in statistics.values()]
    draw_regrets(
        [*blocks, Block("all levels", [*statistics], rows)], [_LABELS[name] for name in rhos], directory / ANSWER
    )


def _verdicts(pooled: Regrets) -> list[str]:
    """Say what holds, and what the percentiles of the peers are."""
    peers = ", ".join(
        f"{pooled.estimate(percentile(pooled.row(peer))):.1f} points for {_LABELS[peer]}" for peer in PEERS
    )
    first = (
        f"The 90th percentile of regret is {peers}. Required: at most {LARGEST}, and at least {BELOW:g} less than both."
    )
    return [first, *(_sentence(method, found) for method, found in answers(pooled).items())]


def _sentence(method: str, found: Answer) -> str:
    below = ", ".join(
        f"{interval:.1f} below {_LABELS[peer]}'s" + _tie(peer, interval) for peer, interval in found.below.items()
    )
    return (
        f"**Tune rho once {_verb(found.verdict)} for {_LABELS[method]}**: 90th percentile {found.percentile:.1f}, "
        f"{below}; mean {found.mean:.1f}."
    )


def _verb(verdict: str) -> str:
    return "is undecided" if verdict == "undecided" else verdict


def _tie(peer: str, interval: Interval) -> str:
    return " (a tie)" if peer == "asam" and interval.low <= 0 <= interval.high else ""


def _not_yet(found: Mapping[str, float]) -> str:
    written = ", ".join(f'"{name}": {rho:g}' for name, rho in found.items())
    return (
        "**No verdict yet**: this is the data set that radii are chosen on. To read them on the others, write "
        f"`CHOSEN = {{{written}}}` into the rules."
    )


def _other(found: Mapping[str, float], chosen: Mapping[str, float]) -> list[str]:
    """Warn of radii that are written down and are not those that development has found."""
    other = [f"{_LABELS[name]} ({rho:g}, not {found[name]:g})" for name, rho in chosen.items() if rho != found[name]]
    return [f"**Not by the rules**: the rho of {', '.join(other)} is not the one that was found."] if other else []


def _of(reading: Reading, rhos: Mapping[str, float]) -> list[str]:
    """Tabulate a data set."""
    levels, first = [level.label for level in reading.first], [*reading.first.values()]
    parts = [f"## {reading.design.label}", _summary([*reading.tables.values()], _with_bases(first, rhos), levels)]
    if CENTRE in reading.first:
        centre = {name: choose([reading.first[CENTRE]], name) for name in rhos}
        parts += [
            "With the rho that is best at the centre of this set, on the seeds that all networks have:",
            _summary(first, centre, levels),
        ]
    parts += ["Points below the method's own best rho, on the same seeds:", _own(first, rhos, levels)]
    ends = min(reading.design.rates), max(reading.design.rates)
    rates = ", ".join(
        f"{rate:g}{' (an end of the range)' if rate in ends else ''} for {METHODS[BASES[kernels]].label}"
        for kernels, rate in sorted(reading.rates.items())
    )
    again = ", ".join(level.label for level in reading.again)
    notes = f"Learning rates of the bases: {rates}." + (f" Further seeds count at: {again}." if again else "")
    return [*parts, notes, _accuracies(reading, rhos)]


def _own(tables: Sequence[Table], rhos: Mapping[str, float], levels: Sequence[str]) -> str:
    """Tabulate regrets among the radii of a method alone: is it safe, if not the best?"""
    lines = []
    for method, rho in rhos.items():
        own = [{cell: values for cell, values in table.items() if cell[0] == method} for table in tables]
        lines += _lines(resample(own, {method: rho}), {method: rho}, levels)
    return markdown_table(_SUMMARY, lines)


def _summary(tables: Sequence[Table], rhos: Mapping[str, float], levels: Sequence[str]) -> str:
    return markdown_table(_SUMMARY, _lines(resample(tables, rhos), rhos, levels))


def _with_bases(tables: Sequence[Table], rhos: Mapping[str, float]) -> dict[str, float]:
    """Add the methods without an ascent, to show what one rho is better than."""
    return {**rhos, **{name: 0.0 for name in BASES.values() if all((name, 0.0) in table for table in tables)}}


def _lines(regrets: Regrets, rhos: Mapping[str, float], levels: Sequence[str]) -> list[tuple[str, ...]]:
    lines = []
    for method, rho in rhos.items():
        row = regrets.row(method)
        cells = [f"{regrets.estimate(one(row)):.1f}" for one in (mean, percentile, maximum)]
        lines.append((_LABELS[method], f"{rho:.3g}", *cells, levels[int(regrets.measured[row].argmax())]))
    return lines


def _accuracies(reading: Reading, rhos: Mapping[str, float]) -> str:
    """Tabulate the best cell of each level, the better base, and every method at its rho: measured accuracies."""
    rows = []
    for level, table in reading.tables.items():
        means = {cell: sum(values) / len(values) for cell, values in table.items()}
        best = max(means, key=lambda cell: means[cell])
        bases = [value for (_, rho), value in means.items() if rho == 0]
        label = f"{_LABELS.get(best[0], 'no ascent')} {best[1]:.3g}"
        none = f"{max(bases):.1f}" if bases else ""
        rows.append((level.label, label, f"{means[best]:.1f}", none, *(f"{means[cell]:.1f}" for cell in rhos.items())))
    header = (
        "validation accuracy, %",
        "best method and rho",
        "at the best",
        "no ascent",
        *(_LABELS[name] for name in rhos),
    )
    return markdown_table(header, rows)


def _choices(development: Reading, found: Mapping[str, float]) -> str:
    """Tabulate mean accuracies over the levels of development by radius."""
    rows = []
    for candidate in development.design.candidates:
        ends = (
            found[candidate.name]
            in (candidate_rhos := development.design.rhos[candidate.name])[:: len(candidate_rhos) - 1]
        )
        tried = []
        for rho in candidate_rhos:
            values = [v for table in development.tables.values() for v in table[candidate.name, rho]]
            mark = "**" if rho == found[candidate.name] else ""
            tried.append(f"{mark}{rho:.3g}{mark}: {sum(values) / len(values):.1f}")
        rows.append((candidate.label, "; ".join(tried), "at an end" if ends else ""))
    return markdown_table(("method", "rho: mean accuracy over levels, %", "chosen"), rows)
