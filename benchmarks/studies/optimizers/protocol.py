"""Tuning and training of all contestants of a case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.runs.configuration import Run
from benchmarks.runs.results import Row
from benchmarks.runs.tuning import Protocol, Tuned, tune
from benchmarks.studies.optimizers.cases import CHECK, CHECKED, Case, Contestant

__all__ = ["Entry", "Settings", "compete", "count"]

#: Learning rates and knobs that a method is tried with.
Settings = Callable[[str], list[tuple[float, float]]]


@dataclass(frozen=True)
class Entry:
    """A contestant, what was chosen for it, and its final runs.

    Attributes
    ----------
    contestant : Contestant
        Method, case and epochs.
    tuned : Tuned
        Its settings and their scores; those of another one for the peer that is but checked.
    rows : list of Row
        One a final seed, in order.
    """

    contestant: Contestant
    tuned: Tuned[Run]
    rows: list[Row]


def compete(
    case: Case,
    collect: Callable[[Sequence[Run]], Sequence[Row]],
    protocol: Protocol,
    settings: Settings,
) -> list[Entry]:
    """Tune every contestant of a case alike, and train it with the final seeds.

    Parameters
    ----------
    case : Case
        Who competes, on what.
    collect : callable
        Trains what is not trained yet, and returns rows in order.
    protocol : Protocol
        Seeds.
    settings : callable
        Grid of a method.

    Returns
    -------
    list of Entry
        In the order of :meth:`Case.contestants`.
    """
    contestants = case.contestants()
    grids = {
        contestant: [contestant.run(lr, knob) for lr, knob in settings(contestant.method)]
        for contestant in contestants
        if contestant.method != CHECK
    }
    tuned = tune(grids, collect, tuning_run, lambda row: row.final_heldout_accuracy, protocol)
    for contestant in contestants:
        if contestant.method == CHECK:
            of_ours = tuned[replace(contestant, method=CHECKED)]
            tuned[contestant] = replace(of_ours, setting=replace(of_ours.setting, method=CHECK))
    runs = [replace(tuned[c].setting, seed=seed) for c in contestants for seed in protocol.final]
    rows = iter(collect(runs))
    return [Entry(c, tuned[c], [next(rows) for _ in protocol.final]) for c in contestants]


def tuning_run(setting: Run, seed: int) -> Run:
    """A setting trained without the validation data, on which it is measured, and nothing else measured."""
    return replace(setting, seed=seed, heldout="validation", curves=False, curvature=False)


def count(case: Case, protocol: Protocol, settings: Settings) -> int:
    """Runs of :func:`compete`, known before any is made."""
    return sum(
        len(protocol.final) + (0 if c.method == CHECK else protocol.budget(len(settings(c.method))))
        for c in case.contestants()
    )
