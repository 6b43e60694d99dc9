"""Tune and train all contestants of a case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.run import Row, Run
from benchmarks.studies.comparison.cases import Case, Contestant
from benchmarks.studies.comparison.tuning import Protocol, Tuned, tune

__all__ = ["Entry", "compete", "count", "find", "tuning_run"]

Collect = Callable[[Sequence[Run]], Sequence[Row]]


@dataclass(frozen=True)
class Entry:
    """Contestant on a case, with its chosen setting and its final runs.

    Attributes
    ----------
    case : Case
        The case.
    contestant : Contestant
        The contestant.
    tuned : Tuned
        Its settings and their scores; those of another case or contestant if the setting was chosen there.
    rows : list of Row
        One per final seed, in order.
    """

    case: Case
    contestant: Contestant
    tuned: Tuned[Run]
    rows: list[Row]

    @property
    def name(self) -> str:
        """Name of the contestant."""
        return self.contestant.name

    @property
    def epochs(self) -> int:
        """Number of epochs that it trained for."""
        return self.case.epochs(self.contestant)

    @property
    def at_case_epochs(self) -> bool:
        """Tell whether it trained for the number of epochs of its case."""
        return self.contestant.passes == 1

    @property
    def knob(self) -> float:
        """Chosen value of its knob."""
        return self.contestant.grid.knob.of(self.tuned.setting)


def find(entries: Sequence[Entry], name: str) -> Entry:
    """Find the entry of a contestant by its name."""
    return next(entry for entry in entries if entry.name == name)


def compete(case: Case, collect: Collect, protocol: Protocol, tuned_with: Case | None = None) -> list[Entry]:
    """Tune each contestant, unless it takes the setting of another, and train all with the final seeds.

    Parameters
    ----------
    case : Case
        The case, with its contestants.
    collect : callable
        Trains runs that have no row yet, and returns all rows in order.
    protocol : Protocol
        Seeds.
    tuned_with : Case, optional
        Case on which settings are chosen, with the same contestants; by default the case itself.

    Returns
    -------
    list of Entry
        In the order of the contestants.
    """
    source = tuned_with or case
    grids = {c.name: source.settings(c) for c in case.contestants if not c.settings_of}
    tuned = tune(grids, collect, tuning_run, case.score.tuned, protocol)
    for c in case.contestants:
        if c.settings_of:
            other = tuned[c.settings_of]
            tuned[c.name] = replace(other, setting=replace(other.setting, method=c.method))
    finals = {c.name: case.adopt(c, tuned[c.name].setting) for c in case.contestants}
    rows = iter(collect([replace(finals[c.name], seed=seed) for c in case.contestants for seed in protocol.final]))
    return [Entry(case, c, tuned[c.name], [next(rows) for _ in protocol.final]) for c in case.contestants]


def tuning_run(setting: Run, seed: int) -> Run:
    """Describe a tuning run of a setting: scored on validation data, without further measurements."""
    return replace(setting, seed=seed, heldout="validation", measures=())


def count(cases: Sequence[Case], protocol: Protocol) -> int:
    """Count the runs that cases need, before any is made."""
    total = 0
    for case in cases:
        tuned = [] if case.tuned_with else [c for c in case.contestants if not c.settings_of]
        total += sum(protocol.budget(len(case.settings(c))) for c in tuned)
        total += len(case.contestants) * len(protocol.final)
    return total
