"""Fixtures of several files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks.data import load
from benchmarks.runs import parallel
from benchmarks.studies.comparison.contest import Entry
from benchmarks.studies.comparison.report import report
from benchmarks.studies.comparison.tuning import Protocol
from benchmarks.studies.images.report import RULES
from tests.benchmarks.comparisons import ASKED, SEEDS, made_up
from tests.benchmarks.entries import made_case


@pytest.fixture
def directory(monkeypatch, tmp_path) -> Path:
    """Give each test a data directory of its own, without downloads and without data from other tests."""
    monkeypatch.setenv("RSAM_DATA", str(tmp_path))
    monkeypatch.delenv("RSAM_DOWNLOAD", raising=False)
    load.cache_clear()
    return tmp_path


@pytest.fixture
def cheap(monkeypatch) -> None:
    """Do not render figures, which takes most of the time of a report."""
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: path.touch())


@pytest.fixture
def here(monkeypatch) -> None:
    """Train in this process, on copies such as another one gets: another one would import torch for seconds."""

    def copied(thing: Any) -> Any:
        return pickle.loads(pickle.dumps(thing))

    def outcomes(runs, train, workers, fresh):
        return ((run, copied(copied(train)(copied(run)))) for run in runs)

    monkeypatch.setattr(parallel, "_outcomes", outcomes)


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> tuple[str, Path, list[list[Entry]]]:
    """Report on two main cases, the first with equal gradients, and a third; return it with its directory."""
    cases = [
        made_up(made_case(ASKED, "one", equal_gradients=True)),
        made_up(made_case(ASKED, "two"), seed=1),
        made_up(made_case(("sgd", "sam", "rsam"), "aside", main=False), seed=2),
    ]
    directory = tmp_path_factory.mktemp("report")
    protocol = Protocol(final=tuple(range(SEEDS)))
    return (
        report("Who wins?", "Is A better?", RULES, cases, ["the lost < one>"], 1, protocol, "It took long.", directory),
        directory,
        cases,
    )
