"""Compare optimizers on images and signals."""

from benchmarks.studies.comparison.study import ComparisonStudy
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.images.cases import LARGE, QUICK_CASES, QUICK_LARGE_CASES, SMALL
from benchmarks.studies.images.report import RULES

__all__ = ["OPTIMIZERS", "OPTIMIZERS_LARGE"]

OPTIMIZERS = ComparisonStudy(
    name="optimizers",
    summary="does RSAM beat SAM, do curvature penalties? claims C4 to C6, 10 seeds; 6 hours on 2 cores",
    title="Does Riemannian SAM beat SAM, and do curvature penalties lose to it?",
    question="Does Riemannian SAM generalise better than SAM, do curvature penalties generalise worse, and does "
    "curvature tell which networks generalise?",
    cases=SMALL,
    quick_cases=QUICK_CASES,
    rules=RULES,
)
OPTIMIZERS_LARGE = ComparisonStudy(
    name="optimizers-large",
    summary="the same on Fashion-MNIST, CIFAR and your own images with ResNets, 5 seeds; wants GPUs",
    title="Riemannian SAM, SAM and curvature penalties on larger data",
    question="Do the answers on small data hold for residual networks on larger ones?",
    cases=LARGE,
    quick_cases=QUICK_LARGE_CASES,
    rules=RULES,
    protocol=Protocol(final=tuple(range(5))),
)
