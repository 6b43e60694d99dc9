"""List the runs beside the comparison that explain its differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.run import Row, Run
from benchmarks.runs.measurement import CURVES
from benchmarks.studies.comparison.contest import Entry

__all__ = ["ASCENTS", "BASE_OF", "COMPARED", "Trials", "as_base", "as_decayed", "ascent_settings", "at", "wanted"]

#: By manifold, methods that differ only in their ascent and in how they carry the gradient back.
ASCENTS = {
    "spheres": ("rsam", "rsam_pullback", "rsam_project", "ambient_sam"),
    "Stiefel": ("rsam_stiefel", "rsam_pullback_stiefel", "rsam_project_stiefel", "ambient_sam_stiefel"),
}
#: Methods that the verdict on RSAM compares.
COMPARED = ("sam", "rsam", "rsam_stiefel")
#: By method with an ascent or a penalty, the method without it.
BASE_OF = {
    "sam": "sgd",
    "rsam": "riemannian_sgd",
    "rsam_stiefel": "riemannian_sgd_stiefel",
    "gradient_norm": "sgd",
    "hessian_trace": "sgd",
}


@dataclass(frozen=True)
class Trials:
    """Final runs of a case, at the settings that tuning chose and at others.

    Attributes
    ----------
    entries : sequence of Entry
        The case's entries in the comparison.
    rows : dict of Run to list of Row
        Rows of the final seeds by setting.
    """

    entries: Sequence[Entry]
    rows: dict[Run, list[Row]]

    @property
    def by_method(self) -> dict[str, Entry]:
        """Entries trained for the epochs of the case, by contestant."""
        return by_method(self.entries)


def by_method(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Map contestants to their entries, without entries trained for more epochs than those of the case."""
    return {entry.name: entry for entry in entries if entry.at_case_epochs}


def ascent_settings(entries: Sequence[Entry], manifold: str) -> list[tuple[float, float]]:
    """List the learning rates and rhos that tuning chose for any of the ascents on a manifold."""
    entry_of = by_method(entries)
    chosen = [entry_of[name].tuned.setting for name in ASCENTS[manifold] if name in entry_of]
    return list(dict.fromkeys((setting.lr, setting.rho) for setting in chosen))


def at(entry: Entry, lr: float, value: float) -> Run:
    """Describe a run of a contestant at another setting than the chosen one."""
    return entry.case.run(entry.contestant, lr, value)


def as_base(entry_of: Mapping[str, Entry], name: str) -> Run:
    """Describe the run of a method's base at the method's own chosen setting."""
    setting = entry_of[name].tuned.setting
    return at(entry_of[BASE_OF[name]], setting.lr, setting.weight_decay)


def as_decayed(entry_of: Mapping[str, Entry], name: str) -> Run:
    """Describe the run at a method's chosen setting, but with the weight decay that was chosen for its base."""
    decay = entry_of[BASE_OF[name]].tuned.setting.weight_decay
    return replace(entry_of[name].tuned.setting, weight_decay=decay)


def wanted(entries: Sequence[Entry]) -> dict[Run, Run]:
    """List the runs of a case beside the comparison: by setting, the run of seed 0.

    These are all ascents at each setting chosen for one of them, all settings that tuning kept, methods with the weight
    decay of their base, and bases at the settings of the methods built on them. Only the last measure curvature.
    """
    entry_of = by_method(entries)
    settings = [
        at(entry_of[name], lr, rho)
        for manifold, names in ASCENTS.items()
        for lr, rho in ascent_settings(entries, manifold)
        for name in names
        if name in entry_of
    ]
    settings += [setting for name in COMPARED if name in entry_of for setting in entry_of[name].tuned.kept]
    pairs = [name for name, base in BASE_OF.items() if {name, base} <= entry_of.keys()]
    settings += [as_decayed(entry_of, name) for name in pairs if name in COMPARED]
    runs = {setting: replace(setting, measures=()) for setting in settings}
    for name in pairs:
        bare = as_base(entry_of, name)
        runs[bare] = replace(bare, measures=tuple(m for m in bare.measures if m != CURVES))
    return runs
