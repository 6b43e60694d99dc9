"""Tuning and training of all methods on cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.runs.tuning import Protocol, Tuned, tune
from benchmarks.studies.tasks.cases import Case
from benchmarks.tasks.methods import FIXED, METHODS
from benchmarks.tasks.trial import Outcome, Trial

__all__ = ["Entry", "compete", "count"]

_TUNED = [name for name, method in METHODS.items() if not method.settings_of]
Collect = Callable[[Sequence[Trial]], Sequence[Outcome]]


@dataclass(frozen=True)
class Entry:
    """A method on a case, what was chosen for it, and its final trials.

    Attributes
    ----------
    case : Case
        On what.
    method : str
        Who.
    tuned : Tuned
        Its settings and their scores: of another case where settings are shared, of another method where it takes its.
    rows : list of Outcome
        One a final seed, in order.
    """

    case: Case
    method: str
    tuned: Tuned[Trial]
    rows: list[Outcome]


def compete(case: Case, tuned_with: Case, collect: Collect, protocol: Protocol) -> list[Entry]:
    """Tune all methods alike but those that take the settings of another, and train them with the final seeds.

    Parameters
    ----------
    case : Case
        On what.
    tuned_with : Case
        On what settings are chosen; mostly the same.
    collect : callable
        Trains what is not trained yet, and returns rows in order.
    protocol : Protocol
        Seeds.

    Returns
    -------
    list of Entry
        In the order of the methods.
    """

    def score(outcome: Outcome) -> float:
        if case.score not in outcome.scores or math.isnan(outcome.scores[case.score]):
            return -math.inf  # diverged
        return -outcome.scores[case.score] if case.smaller else outcome.scores[case.score]

    grids = {m: [tuned_with.trial(m, lr, knob) for lr, knob in tuned_with.grid.settings(m)] for m in _TUNED}
    tuned = tune(grids, collect, _tuning_trial, score, protocol)
    for m in METHODS.keys() - grids.keys():
        other = tuned[METHODS[m].settings_of]
        tuned[m] = replace(other, setting=tuned_with.trial(m, other.setting.lr, FIXED))
    finals = {m: case.trial(m, tuned[m].setting.lr, tuned[m].setting.knob) for m in METHODS}
    rows = iter(collect([replace(finals[m], seed=seed) for m in METHODS for seed in protocol.final]))
    return [Entry(case, m, tuned[m], [next(rows) for _ in protocol.final]) for m in METHODS]


def _tuning_trial(setting: Trial, seed: int) -> Trial:
    return replace(setting, seed=seed, heldout="validation", curvature=False)


def count(cases: Sequence[Case], protocol: Protocol) -> int:
    """Trials of some cases, known before any is made."""
    tuning = sum(protocol.budget(len(c.grid.settings(m))) for c in cases if not c.tuned_with for m in _TUNED)
    return tuning + len(cases) * len(METHODS) * len(protocol.final)
