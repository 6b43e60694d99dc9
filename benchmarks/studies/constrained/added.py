"""The ascent on top of what RiemannianSGD does best with, which was added after the other runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from benchmarks.run import Run
from benchmarks.studies.comparison.tuning import tune
from benchmarks.studies.constrained.contest import Collect, Found, stopped, validation
from benchmarks.studies.constrained.design import BASE, Case, Design
from benchmarks.studies.constrained.rules import DECIDING, RHOS

__all__ = ["Added", "add_ascent"]


@dataclass(frozen=True)
class Added:
    """What the ascent adds to the best settings of RiemannianSGD in a case.

    Attributes
    ----------
    case : Case
        The case.
    rhos : list of float
        Chosen for each of the settings, the best setting first.
    differences : list of float
        With the ascent minus without, in points, mean over the settings, seed by seed.
    """

    case: Case
    rhos: list[float]
    differences: list[float]


def add_ascent(found: Sequence[Found], design: Design, collect: Collect) -> list[Added]:
    """Choose a rho for each setting that RiemannianSGD went on with, and train it with the final seeds.

    Parameters
    ----------
    found : sequence of Found
        All cases; those at the levels of noise that decide are used.
    design : Design
        Settings and seeds.
    collect : callable
        Trains runs that have no row yet, and returns all rows in order.
    """
    found = [f for f in found if f.case.label_noise in DECIDING]
    grids = {(f.case, s): [design.with_ascent(s, rho) for rho in RHOS] for f in found for s in f.settings[BASE]}
    if not grids:
        return []
    tuned = tune(grids, collect, design.trial, validation, replace(design.protocol, kept=len(RHOS)))
    chosen = {f.case: [tuned[f.case, s].setting for s in f.settings[BASE]] for f in found}
    seeds = design.protocol.final
    wanted = [replace(s, seed=seed) for settings in chosen.values() for s in settings for seed in seeds]
    rows = dict(zip(wanted, collect(wanted), strict=True))

    def scores(setting: Run) -> list[float]:
        return [stopped(rows[replace(setting, seed=seed)]) for seed in seeds]

    added = []
    for f in found:
        settings = chosen[f.case]
        means = [fmean(of_seed) for of_seed in zip(*map(scores, settings), strict=True)]
        differences = [a - b for a, b in zip(means, f.of(BASE), strict=True)]
        added.append(Added(f.case, [s.rho for s in settings], differences))
    return added
