"""The ascent on top of what RiemannianSGD does best with, which was added after the other runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.studies.comparison.tuning import tune
from benchmarks.studies.constrained.contest import Collect, Found, validation
from benchmarks.studies.constrained.design import ASCENT, BASE, Design
from benchmarks.studies.constrained.rules import DECIDING, RHOS

__all__ = ["add_ascent"]


def add_ascent(found: Sequence[Found], design: Design, collect: Collect) -> list[Found]:
    """Choose a rho for each setting that RiemannianSGD went on with, and train it with the final seeds.

    Parameters
    ----------
    found : sequence of Found
        All cases; those at the levels of noise that decide are used.
    design : Design
        Settings and seeds.
    collect : callable
        Trains runs that have no row yet, and returns all rows in order.

    Returns
    -------
    list of Found
        These cases with RSAM at the settings of RiemannianSGD, instead of those that it chose itself.
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
    return [
        replace(f, settings={**f.settings, ASCENT: chosen[f.case]}, rows=f.rows | rows, same=f.settings[BASE][0])
        for f in found
    ]
