"""Compare methods on weights that live on manifolds: hyperbolic, orthogonal, symmetric positive definite."""

from dataclasses import replace

from benchmarks.studies.comparison.study import ComparisonStudy, Extra
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.manifold_tasks import cases, disk
from benchmarks.studies.manifold_tasks.report import RULES

__all__ = ["HYPERBOLIC", "HYPERBOLIC_NOUNS", "RECURRENT", "SPD"]

_PROTOCOL = Protocol(kept=3, second=(1001, 1002), final=tuple(range(5)))
_TEN = replace(_PROTOCOL, final=tuple(range(10)))

HYPERBOLIC = ComparisonStudy(
    name="hyperbolic",
    summary="mammals of WordNet and few labels in hyperbolic space, 5 seeds; 4 hours on 2 cores",
    title="Riemannian SAM in hyperbolic space",
    question="Is a sharpness-aware ascent worth its second gradient in hyperbolic space, and does its geometry matter?",
    cases=cases.HYPERBOLIC,
    quick_cases=cases.shortened(
        cases.HYPERBOLIC, "mammals-poincare-2-reconstruction", "mammals-lorentz-5-10", "few_labels"
    ),
    rules=RULES,
    protocol=_PROTOCOL,
    extra=Extra(disk.embed_in_disk, disk.draw),
)
HYPERBOLIC_NOUNS = ComparisonStudy(
    name="hyperbolic-nouns",
    summary="the same of all nouns of WordNet, one seed, not tuned; 7 hours on 2 cores, 2 GB each",
    title="Riemannian SAM on all nouns of WordNet",
    question="What do Riemannian SAM and its bases reach on the largest hierarchy, and what memory does it take?",
    cases=cases.NOUNS,
    quick_cases=cases.shortened(cases.ANIMALS, "animals-lorentz-10-reconstruction"),
    rules=RULES,
    protocol=Protocol(final=(0,)),
)
RECURRENT = ComparisonStudy(
    name="recurrent",
    summary="orthogonal recurrent networks: copying, adding, images row by row, 10 seeds; 4 hours on 2 cores",
    title="Riemannian SAM on orthogonal recurrent networks",
    question="Is a sharpness-aware ascent worth its second gradient on orthogonal matrices, and does its geometry "
    "matter?",
    cases=cases.RECURRENT,
    quick_cases=cases.shortened(cases.RECURRENT, "copying-canonical", "adding-stiefel", "rows-stiefel"),
    rules=RULES,
    protocol=_TEN,
)
SPD = ComparisonStudy(
    name="spd",
    summary="a network of SPD features on muscle signals of another session, 10 seeds; half an hour on 2 cores",
    title="Riemannian SAM on a network of SPD features",
    question="Is a sharpness-aware ascent worth its second gradient on symmetric positive definite matrices, and does "
    "its geometry matter?",
    cases=cases.SPD,
    quick_cases=cases.shortened(cases.SPD),
    rules=RULES,
    protocol=_TEN,
)
