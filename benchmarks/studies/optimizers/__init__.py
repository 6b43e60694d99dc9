"""The comparison of optimizers."""

from benchmarks.runs.tuning import Protocol
from benchmarks.studies.optimizers.cases import LARGE, LITTLE, LITTLE_LARGE, SMALL
from benchmarks.studies.optimizers.study import OptimizersStudy

__all__ = ["OPTIMIZERS", "OPTIMIZERS_LARGE", "OptimizersStudy"]

OPTIMIZERS = OptimizersStudy(
    name="optimizers",
    summary="does RSAM beat SAM, do curvature penalties? claims C4 to C6, 10 seeds; 6 hours on 2 cores",
    title="Does Riemannian SAM beat SAM, and do curvature penalties lose to it?",
    cases=SMALL,
    little=LITTLE,
)
OPTIMIZERS_LARGE = OptimizersStudy(
    name="optimizers-large",
    summary="the same on Fashion-MNIST, CIFAR and your own images with ResNets, 5 seeds; wants GPUs",
    title="Riemannian SAM, SAM and curvature penalties on larger data",
    cases=LARGE,
    little=LITTLE_LARGE,
    protocol=Protocol(final=tuple(range(5))),
)
