"""Run the study: learning rates, then all radii, then further seeds at the levels that decide."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import load
from benchmarks.run import Row, Run
from benchmarks.runs.parallel import Workers, collect
from benchmarks.runs.results import Results
from benchmarks.studies.costs import seconds
from benchmarks.studies.one_rho.design import BASES, CANDIDATES, CENTRE, Design, Level, points
from benchmarks.studies.one_rho.regret import Cell, Table
from benchmarks.studies.one_rho.report import Reading, report
from benchmarks.studies.one_rho.rules import BEST, PEERS, WORST, contenders, deciding
from benchmarks.studies.study import ROWS, NothingToReport, announce, cost, present, trainer
from benchmarks.workloads.images import Kernels

__all__ = ["OneRhoStudy"]

#: Describes runs, as far as the rows that are there decide which these are.
Stage = Callable[[Design, Results[Row]], Mapping[Any, Run]]


@dataclass(frozen=True)
class OneRhoStudy:
    """Trains methods at one rho where everything else changes, and measures what tuning it anew would have gained.

    Attributes
    ----------
    name, summary : str
        See :class:`~benchmarks.studies.study.Study`.
    development : Design
        On which the rho of each method is chosen.
    held_back : tuple of Design
        On which chosen radii are read; radii are set from ``chosen``.
    chosen : mapping of str to float
        See :data:`~benchmarks.studies.one_rho.rules.CHOSEN`.

    Raises
    ------
    ValueError
        If radii are chosen of some methods only: the best of a level would be that of these.
    """

    name: str
    summary: str
    development: Design
    held_back: tuple[Design, ...]
    chosen: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.chosen and self.chosen.keys() != self.development.rhos.keys():
            wrong = ", ".join(sorted(self.chosen.keys() ^ self.development.rhos.keys()))
            raise ValueError(f"CHOSEN must have a rho of every method that is tried and of no other; look at {wrong}")

    @property
    def reading(self) -> list[Design]:
        """Designs that are held back, with half, once and twice each chosen rho; none before radii are chosen."""
        rhos = {name: (rho / 2, rho, 2 * rho) for name, rho in self.chosen.items()}
        return [replace(design, rhos=rhos) for design in self.held_back] if rhos else []

    def run(self, directory: Path, workers: Workers) -> None:
        """Train what is missing of each design; those that are held back once the radii are written down."""
        results, train = self._results(directory), trainer(directory, workers)
        designs = [d for d in (self.development, *self.reading) if present(d.label, partial(load, d.dataset))]
        announce([seconds(run) for design in designs for run in _predicted(design, results, self.chosen)])
        for design in designs:
            stages: list[Stage] = [_trials, _grid, partial(_further, chosen=self.chosen)]
            for stage in stages:
                if runs := [*stage(design, results).values()]:
                    collect(runs, train, results, workers)
        if not self.chosen:
            print(
                "the sets that are held back are not trained on: write the rho of each method, which the report names, "
                "into CHOSEN of benchmarks/studies/one_rho/rules.py, commit it, and run this again",
                file=sys.stderr,
            )

    def report(self, directory: Path) -> str:
        """Report on the levels of which all networks are there."""
        results = self._results(directory)
        development = _read(self.development, results, {})
        if not development.tables:
            raise NothingToReport(f"{results.path} has no level of which all networks are there")
        held_back = [_read(design, results, self.chosen) for design in self.reading]
        return report(development, held_back, self.chosen, cost(results), directory)

    def quick(self) -> OneRhoStudy:
        """Shorten the study to three methods at three levels, with radii that stand for chosen ones."""
        few = (CENTRE, Level("wrong labels", 0.4), Level("batch", 32))
        candidates = {c.name: c.rhos for c in CANDIDATES if c.name in (*PEERS, "rsam_angle")}
        rhos = {name: of_method[2:4] for name, of_method in candidates.items()}
        development = Design("Fashion-MNIST mini", "fashion_mnist_mini", few, rhos, 256, epochs=2, rates=(0.03,))
        held_back = replace(development, label="MNIST-1D", dataset="mnist1d_anew", further=(2, 3))
        chosen = {name: of_method[2] for name, of_method in candidates.items()}
        return OneRhoStudy(self.name, self.summary, development, (held_back,), chosen)

    def _results(self, directory: Path) -> Results[Row]:
        return Results(directory / ROWS, Row)


def _trials(design: Design, results: Results[Row]) -> dict[tuple[Kernels, float, int], Run]:
    return design.trials()


def _grid(design: Design, results: Results[Row]) -> dict[tuple[Level, Cell, int], Run]:
    """Describe the networks of all levels; none before the learning rates are known."""
    rates = design.own_rates(results.find(design.trials().values()))
    return design.networks(rates) if rates else {}


def _further(design: Design, results: Results[Row], chosen: Mapping[str, float]) -> dict[tuple[Level, Cell, int], Run]:
    """Describe the networks with further seeds; none before those of the first seeds are there."""
    grid = _grid(design, results)
    if not design.further or not grid or set(grid.values()) - results.find(grid.values()).keys():
        return {}
    tables = _tables(grid, results)
    levels = [design.levels[number] for number in deciding([tables[level] for level in design.levels], chosen)]
    cells = {level: contenders(tables[level], chosen) for level in levels}
    rates = design.own_rates(results.find(design.trials().values()))
    return design.networks(rates, cells, design.further)


def _tables(networks: Mapping[tuple[Level, Cell, int], Run], results: Results[Row]) -> dict[Level, Table]:
    """Look up the accuracies of all levels of which no network is missing."""
    rows = results.find(networks.values())
    incomplete = {level for (level, *_), run in networks.items() if run not in rows}
    tables: dict[Level, dict[Cell, list[float]]] = {}
    for (level, cell, _), run in networks.items():  # seeds in order
        if level not in incomplete:
            tables.setdefault(level, {}).setdefault(cell, []).append(points(rows[run]))
    return dict(tables)


def _read(design: Design, results: Results[Row], chosen: Mapping[str, float]) -> Reading:
    """Read a data set."""
    tables = _tables(_grid(design, results), results)
    further = _further(design, results, chosen)
    again = _tables(further, results)
    missing = [level.label for level in design.levels if level not in tables]
    missing += [
        f"further seeds at {level.label}" for level in dict.fromkeys(lv for lv, *_ in further) if level not in again
    ]
    rates = design.own_rates(results.find(design.trials().values()))
    return Reading(design, tables, again, missing, rates)


def _predicted(design: Design, results: Results[Row], chosen: Mapping[str, float]) -> list[Run]:
    """List what is left to train; as long as learning rates or levels are not known, networks that take as long."""
    trials = [*design.trials().values()]
    rates = design.own_rates(results.find(trials)) or {kernels: design.rates[0] for kernels, *_ in design.trials()}
    runs = [*trials, *design.networks(rates).values()]
    further = [*_further(design, results, chosen).values()]
    if design.further and not further:
        # two thirds of the levels that may decide: some are among the worst of two methods
        some = design.levels[: 2 * WORST]
        best = [(name, 2 * rho) for name, rho in chosen.items()][:BEST]
        cells = [*chosen.items(), *best, *((name, 0.0) for name in BASES.values())]
        further = [*design.networks(rates, dict.fromkeys(some, cells), design.further).values()]
    there = results.find([*runs, *further])
    return [run for run in (*runs, *further) if run not in there]
