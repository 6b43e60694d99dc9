"""Tasks of which the parameters live on manifolds."""

from collections.abc import Callable

from benchmarks.tasks.hyperbolic import animals, few_labels, mammals, nouns
from benchmarks.tasks.problem import Problem
from benchmarks.tasks.recurrent import adding, copying, rows
from benchmarks.tasks.spd import emg
from benchmarks.tasks.trial import Trial

__all__ = ["TASKS"]

TASKS: dict[str, Callable[[Trial], Problem]] = {
    "mammals": mammals,
    "animals": animals,
    "nouns": nouns,
    "few_labels": few_labels,
    "copying": copying,
    "adding": adding,
    "rows": rows,
    "emg": emg,
}
