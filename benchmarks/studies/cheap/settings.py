"""Take over the settings that the study ``fair`` chose, on the cases that both have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.run import Row, Run
from benchmarks.runs.results import Results
from benchmarks.studies.cheap.contest import Case
from benchmarks.studies.cheap.variants import Kernels
from benchmarks.studies.comparison.contest import Entry, find
from benchmarks.studies.comparison.study import find_entries
from benchmarks.studies.fair import FAIR
from benchmarks.studies.study import ROWS
from benchmarks.workloads.samples import Samples

__all__ = ["ASKED", "LABELS", "cases_from", "from_fair", "quick_cases"]

#: Contestant whose setting is taken over, by kernels.
_CHOSEN: dict[Kernels, str] = {"spheres": "rsam", "plain": "sam"}
_CASES = ("cifar10", "fashion_mnist_noise20", "mnist1d")
#: Labels of the cases by their names in ``fair``, and their data by these labels.
LABELS = {case.name: case.label for case in FAIR.cases if case.name in _CASES}
ASKED = {case.label: case.template.workload for case in FAIR.cases if case.name in _CASES}


def from_fair(directory: Path) -> list[Case]:
    """Read the settings from the rows of ``fair`` beside the directory of a study; nothing of cases that lack some."""
    asked = [case for case in FAIR.cases if case.name in LABELS]
    entries, _ = find_entries(asked, FAIR.protocol, Results(directory.parent / FAIR.name / ROWS, Row))
    return cases_from(entries)


def cases_from(contests: Sequence[Sequence[Entry]]) -> list[Case]:
    """Make the cases of this study from the entries of another one."""
    return [
        Case(
            entries[0].case.name,
            entries[0].case.label,
            {kernels: find(entries, name).tuned.setting for kernels, name in _CHOSEN.items()},
        )
        for entries in contests
    ]


def quick_cases(directory: Path) -> list[Case]:
    """Make a small case of data that need no files, at a setting that nobody chose."""
    samples: dict[Kernels, Samples] = {k: Samples("mnist1d_anew", 256, kernels=k) for k in _CHOSEN}
    settings = {k: Run(s, "", 0, 0.03, epochs=5, rho=0.1) for k, s in samples.items()}
    return [Case("mnist1d", LABELS["mnist1d"], settings)]
