"""Collect all studies by name."""

from benchmarks.studies.ablations import ABLATIONS
from benchmarks.studies.cheap import CHEAP
from benchmarks.studies.constrained import CONSTRAINED
from benchmarks.studies.estimators import ESTIMATORS
from benchmarks.studies.fair import FAIR
from benchmarks.studies.images import OPTIMIZERS, OPTIMIZERS_LARGE
from benchmarks.studies.manifold_tasks import HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD
from benchmarks.studies.norms_and_skips import NORMS_AND_SKIPS
from benchmarks.studies.one_rho import ONE_RHO
from benchmarks.studies.overhead import OVERHEAD
from benchmarks.studies.population import POPULATION
from benchmarks.studies.quick import QUICK
from benchmarks.studies.study import NothingToReport, Study

__all__ = ["STUDIES", "NothingToReport", "Study"]

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        QUICK,
        OPTIMIZERS,
        ABLATIONS,
        OPTIMIZERS_LARGE,
        FAIR,
        CHEAP,
        HYPERBOLIC,
        HYPERBOLIC_NOUNS,
        RECURRENT,
        SPD,
        OVERHEAD,
        ESTIMATORS,
        POPULATION,
        NORMS_AND_SKIPS,
        CONSTRAINED,
        ONE_RHO,
    )
}
