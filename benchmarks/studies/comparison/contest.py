"""Tune and train all contestants of a case."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.run import Row, Run
from benchmarks.studies.comparison.cases import Case, Contestant
from benchmarks.studies.comparison.tuning import Protocol, Tuned, tune

__all__ = ["Entry", "compete", "count", "find", "noting", "outstanding", "random_score", "stand_in", "tuning_run"]

Collect = Callable[[Sequence[Run]], Sequence[Row]]
Find = Callable[[Sequence[Run]], Mapping[Run, Row]]


@dataclass(frozen=True)
class Entry:
    """Contestant on a case, with one of its best settings and its final runs there.

    Attributes
    ----------
    case : Case
        The case.
    contestant : Contestant
        The contestant, with ranges as they were widened.
    tuned : Tuned
        Its settings and their scores; those of another case or contestant if the setting was chosen there.
    rows : list of Row
        One per final seed, in order.
    rank : int
        Place of the setting among the best ones, from 0.
    """

    case: Case
    contestant: Contestant
    tuned: Tuned[Run]
    rows: list[Row]
    rank: int = 0

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


def find(entries: Sequence[Entry], name: str) -> Entry:
    """Find the entry of a contestant, at its best setting, by its name."""
    return next(entry for entry in entries if entry.name == name)


def compete(case: Case, collect: Collect, protocol: Protocol, tuned_with: Case | None = None) -> list[Entry]:
    """Tune each contestant, unless it takes the settings of another, and train all with the final seeds.

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
        In the order of the contestants; of each, one per best setting, the best one first.
    """
    source, tuned = _choose(tuned_with or case, collect, protocol)
    grids = {c.name: c.grid for c in source.contestants}
    entered = []
    for c in case.contestants:
        chosen = tuned[c.settings_of or c.name]
        if c.settings_of:
            tuned[c.name] = replace(chosen, setting=replace(chosen.setting, method=c.method))
        best = [case.adopt(c, replace(setting, method=c.method)) for setting in chosen.best(protocol.best)]
        entered += [(replace(c, grid=grids[c.name]), rank, setting) for rank, setting in enumerate(best)]
    rows = iter(collect([replace(setting, seed=seed) for *_, setting in entered for seed in protocol.final]))
    return [Entry(case, c, tuned[c.name], [next(rows) for _ in protocol.final], rank) for c, rank, _ in entered]


def _choose(case: Case, collect: Collect, protocol: Protocol) -> tuple[Case, dict[str, Tuned[Run]]]:
    """Tune contestants; widen ranges, as often as the protocol allows, where the best settings lie at their ends."""
    for turn in range(protocol.rounds + 1):
        grids = {c.name: case.settings(c) for c in case.contestants if not c.settings_of}
        tuned = tune(grids, collect, tuning_run, case.score.tuned, protocol, even=turn == 0)
        # where every setting diverged, or has no rows yet, none is the best one
        chosen = {name: one.setting for name, one in tuned.items() if one.score > -math.inf}
        wider = case.widened(chosen) if turn < protocol.rounds else case
        if wider == case:
            break
        case = wider
    return case, tuned


def outstanding(case: Case, find: Find, protocol: Protocol, tuned_with: Case | None = None) -> list[Run]:
    """List the runs that a case still lacks; where these are not decided yet, as many others that take as long.

    Parameters
    ----------
    case, protocol, tuned_with
        See :func:`compete`.
    find : callable
        Finds the rows of those runs that have one.
    """
    lacking: list[Run] = []

    compete(case, noting(lacking, find), protocol, tuned_with)
    return lacking


def random_score(run: Run) -> float:
    """Draw a score between 0 and 1, the same each time for a run."""
    return int(run.key, 16) / 16**16


def stand_in(run: Run) -> Row:
    """Make a row that loses against all others."""
    unknown = dict.fromkeys(("violation", "seconds_per_step", "seconds", "megabytes"), math.nan)
    return Row(run, True, {}, {}, {}, gradients=0, device="", torch_version="", **unknown)


def noting(lacking: list[Run], find: Find, made: Callable[[Run], Row] = stand_in) -> Collect:
    """Return a function that finds rows, appends the runs without one to a list, and makes up a row for each."""

    def collect(runs: Sequence[Run]) -> list[Row]:
        rows = find(runs)
        lacking.extend(run for run in runs if run not in rows)
        return [rows.get(run) or made(run) for run in runs]

    return collect


def tuning_run(setting: Run, seed: int) -> Run:
    """Describe a tuning run of a setting: scored on validation data, without further measurements."""
    return replace(setting, seed=seed, heldout="validation", measures=())


def count(cases: Sequence[Case], protocol: Protocol) -> int:
    """Count the runs that cases need, before any is made and any range is widened."""
    total = 0
    for case in cases:
        sizes = {c.name: len(case.settings(c)) for c in case.contestants if not c.settings_of}
        total += 0 if case.tuned_with else sum(map(protocol.budget, sizes.values()))
        total += sum(min(protocol.best, sizes[c.settings_of or c.name]) for c in case.contestants) * len(protocol.final)
    return total
