"""Tasks of which the parameters live on manifolds."""

from collections.abc import Callable

from benchmarks.tasks.trial import Trial
from benchmarks.workloads.hyperbolic import animals, few_labels, mammals, nouns
from benchmarks.workloads.problem import Problem
from benchmarks.workloads.recurrent import adding, copying, rows
from benchmarks.workloads.spd import emg

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
