"""What an ascent has to cost: accuracy against gradient evaluations."""

from benchmarks.studies.cheap.settings import ASKED, from_fair
from benchmarks.studies.cheap.study import CheapStudy

__all__ = ["CHEAP"]

CHEAP = CheapStudy(
    name="cheap",
    summary="how cheap can an ascent be? variants at one setting against gradient evaluations; 2 hours on 2 cores",
    asked=ASKED,
    settings=from_fair,
)
