"""Studies by name."""

from benchmarks.studies.ablations import ABLATIONS
from benchmarks.studies.estimators import ESTIMATORS
from benchmarks.studies.optimizers import OPTIMIZERS, OPTIMIZERS_LARGE
from benchmarks.studies.overhead import OVERHEAD
from benchmarks.studies.quick import QUICK
from benchmarks.studies.quick_tuning import QUICK_TUNING
from benchmarks.studies.study import NothingToReport, Study, TrainingStudy

__all__ = ["STUDIES", "NothingToReport", "Study", "TrainingStudy"]

STUDIES: dict[str, Study] = {
    study.name: study for study in (QUICK, QUICK_TUNING, OPTIMIZERS, ABLATIONS, OPTIMIZERS_LARGE, OVERHEAD, ESTIMATORS)
}
