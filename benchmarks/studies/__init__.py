"""Studies by name."""

from benchmarks.studies.ablations import ABLATIONS
from benchmarks.studies.estimators import ESTIMATORS
from benchmarks.studies.optimizers import OPTIMIZERS, OPTIMIZERS_LARGE
from benchmarks.studies.overhead import OVERHEAD
from benchmarks.studies.quick import QUICK
from benchmarks.studies.quick_tuning import QUICK_TUNING
from benchmarks.studies.study import NothingToReport, Study, TrainingStudy
from benchmarks.studies.tasks import HYPERBOLIC, HYPERBOLIC_NOUNS, RECURRENT, SPD

__all__ = ["HIERARCHIES", "STUDIES", "NothingToReport", "Study", "TrainingStudy"]

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        QUICK,
        QUICK_TUNING,
        OPTIMIZERS,
        ABLATIONS,
        OPTIMIZERS_LARGE,
        HYPERBOLIC,
        RECURRENT,
        SPD,
        OVERHEAD,
        ESTIMATORS,
    )
}
#: The study ``hyperbolic`` by ``--hierarchy``.
HIERARCHIES: dict[str, Study] = {"mammals": HYPERBOLIC, "nouns": HYPERBOLIC_NOUNS}
