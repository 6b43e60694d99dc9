"""Margins, curvature and the generalisation gap over a population of networks that nobody tuned."""

from benchmarks.studies.population.design import Design
from benchmarks.studies.population.study import PopulationStudy

__all__ = ["POPULATION"]

_NOISY = (0.1, 0.2)
POPULATION = PopulationStudy(
    name="population",
    summary="do margins and curvature predict the generalisation gap? claims C1 to C4; 11 hours on 2 cores",
    designs=(
        Design("cifar10"),
        Design("mnist1d"),
        Design("fashion_mnist", bases=15),
        Design("cifar10", bases=20, label_noise=_NOISY),
        Design("mnist1d", bases=20, label_noise=_NOISY),
    ),
)
