"""Compare Riemannian SAM, SAM and a trace penalty where all methods have the same knobs."""

from benchmarks.studies.fair.cases import CASES, PROTOCOL, READ
from benchmarks.studies.fair.rules import RECOMMENDED
from benchmarks.studies.fair.study import FairStudy

__all__ = ["FAIR"]

FAIR = FairStudy(
    name="fair",
    summary="does RSAM beat SAM where all have weight decay? claims C5 and C6; 6 hours on 2 cores",
    cases=CASES,
    protocol=PROTOCOL,
    read=READ,
    recommended=RECOMMENDED,
)
