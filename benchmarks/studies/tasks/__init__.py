"""Comparisons on tasks that live on manifolds: hyperbolic, orthogonal, symmetric positive definite."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from benchmarks.data.wordnet import load_hierarchy
from benchmarks.runs.tuning import Protocol
from benchmarks.studies.tasks import cases, disk
from benchmarks.studies.tasks.study import PROTOCOL, Extra, TasksStudy

__all__ = ["HYPERBOLIC", "HYPERBOLIC_NOUNS", "RECURRENT", "SPD", "TasksStudy"]


def _named(found: Sequence[cases.Case], *names: str) -> tuple[cases.Case, ...]:
    by_name = {case.name: case for case in found}
    return tuple(by_name[name] for name in names)


HYPERBOLIC = TasksStudy(
    name="hyperbolic",
    summary="mammals of WordNet and few labels in hyperbolic space, 5 seeds; 4 hours on 2 cores",
    title="Riemannian SAM in hyperbolic space",
    cases=cases.HYPERBOLIC,
    little=_named(cases.HYPERBOLIC, "mammals-poincare-2-reconstruction", "mammals-lorentz-5-10", "few_labels"),
    extra=Extra(disk.embed_in_disk, disk.draw),
)
HYPERBOLIC_NOUNS = TasksStudy(
    name="hyperbolic-nouns",
    summary="the same of all nouns of WordNet, one seed, not tuned; 7 hours on 2 cores, 2 GB each",
    title="Riemannian SAM on all nouns of WordNet",
    cases=cases.NOUNS,
    little=_named(cases.ANIMALS, "animals-lorentz-10-reconstruction"),
    protocol=Protocol(final=(0,)),
    data=partial(load_hierarchy, "nouns"),
)
RECURRENT = TasksStudy(
    name="recurrent",
    summary="orthogonal recurrent networks: copying, adding, images row by row, 10 seeds; 4 hours on 2 cores",
    title="Riemannian SAM on orthogonal recurrent networks",
    cases=cases.RECURRENT,
    little=_named(cases.RECURRENT, "copying-canonical", "adding-stiefel", "rows-stiefel"),
    protocol=replace(PROTOCOL, final=tuple(range(10))),
)
SPD = TasksStudy(
    name="spd",
    summary="a network of SPD features on muscle signals of another session, 10 seeds; half an hour on 2 cores",
    title="Riemannian SAM on a network of SPD features",
    cases=cases.SPD,
    little=cases.SPD,
    protocol=replace(PROTOCOL, final=tuple(range(10))),
)
