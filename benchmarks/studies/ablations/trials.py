"""What is trained beside the comparison, to see what its differences come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.runs.configuration import Run
from benchmarks.runs.results import Row
from benchmarks.studies.optimizers.protocol import Entry

__all__ = ["COMPARED", "WAYS", "Trials", "wanted"]

#: Ascents and ways back on the same manifolds, which differ in nothing else.
WAYS = {
    "spheres": ("rsam", "rsam_pullback", "rsam_project", "ambient_sam"),
    "Stiefel": ("rsam_stiefel", "rsam_pullback_stiefel", "rsam_project_stiefel", "ambient_sam_stiefel"),
}
#: Those that the verdict on RSAM compares.
COMPARED = ("sam", "rsam", "rsam_stiefel")


@dataclass(frozen=True)
class Trials:
    """Final runs of a case, at the settings that tuning chose and at others.

    Attributes
    ----------
    entries : sequence of Entry
        What the comparison has of the case.
    rows : dict of Run to list of Row
        By run of seed 0, rows of the final seeds.
    """

    entries: Sequence[Entry]
    rows: dict[Run, list[Row]]

    @property
    def by_method(self) -> dict[str, Entry]:
        """Entries at the epochs of the case."""
        return by_method(self.entries)


def by_method(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Entries at the epochs of their case."""
    return {entry.contestant.method: entry for entry in entries if entry.contestant.at_case_epochs}


def settings_of_ways(entries: Sequence[Entry], place: str) -> list[tuple[float, float]]:
    """Learning rates and rhos that tuning chose for one of the ways on a manifold."""
    found = by_method(entries)
    chosen = [found[name].tuned.setting for name in WAYS[place] if name in found]
    return list(dict.fromkeys((setting.lr, setting.rho) for setting in chosen))


def wanted(entries: Sequence[Entry]) -> list[Run]:
    """Runs of seed 0 of a case: all ways at each setting that one of them chose, and all settings tuning kept."""
    found = by_method(entries)
    runs = [
        found[name].contestant.run(lr, rho)
        for place, names in WAYS.items()
        for lr, rho in settings_of_ways(entries, place)
        for name in names
        if name in found
    ]
    runs += [setting for name in COMPARED if name in found for setting in found[name].tuned.kept]
    return list(dict.fromkeys(runs))


def unmeasured(run: Run, seed: int) -> Run:
    """The same training, of which the accuracy at its end only is wanted."""
    return replace(run, seed=seed, curves=False, curvature=False)
