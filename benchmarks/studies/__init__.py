"""Studies by name."""

from benchmarks.studies.estimators import ESTIMATORS
from benchmarks.studies.overhead import OVERHEAD
from benchmarks.studies.quick import QUICK
from benchmarks.studies.quick_tuning import QUICK_TUNING
from benchmarks.studies.study import Study, TrainingStudy

__all__ = ["STUDIES", "Study", "TrainingStudy"]

STUDIES: dict[str, Study] = {study.name: study for study in (QUICK, QUICK_TUNING, OVERHEAD, ESTIMATORS)}
