"""That ratios of costs are formed within each repeat, and all contenders are measured, kept and reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from benchmarks.runs.parallel import Workers
from benchmarks.runs.training import train_model
from benchmarks.studies.overhead import (
    OverheadStudy,
    curvature,
    landscapes,
    margins,
    memory,
    optimizers,
    savings,
    spread,
    steps,
    timing,
    traces,
)
from benchmarks.studies.overhead.section import Measurement
from benchmarks.studies.overhead.study import _Part
from benchmarks.studies.study import NothingToReport


def test_that_a_step_is_compared_with_its_parts() -> None:
    times = {"gradient": [1.0, 2.0, 100.0], "base step": [0.5, 1.0, 1.0], "step": [3.0, 6.0, 402.0]}
    assert steps.step_ratio(times).estimate == pytest.approx(1.2)  # the median of 3/2.5, 6/5 and 402/201
    assert timing.median_ratio(times, "step", "gradient").estimate == pytest.approx(3.0)
    assert timing.milliseconds(times, "gradient") == pytest.approx(2000)


def test_that_parts_are_timed_in_turn_after_the_warm_up() -> None:
    calls: list[str] = []
    times = timing.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, 2, "")
    assert "".join(calls) == "ab" * 5
    assert {name: len(of) for name, of in times.items()} == {"a": 3, "b": 3}


def test_that_every_contender_is_reported_with_its_limit(tmp_path, monkeypatch) -> None:
    # small versions of the measurements
    cases = {case.label: case for case in optimizers.CASES}
    small = [cases["50 SPD 8×8"], cases["200 plain of 256"]]
    monkeypatch.setattr(optimizers, "CASES", small)
    monkeypatch.setattr(memory, "_COUNT", 2)
    monkeypatch.setattr(curvature, "BATCH", 8)
    monkeypatch.setattr(margins, "IMAGES", 500)
    monkeypatch.setattr(landscapes, "POINTS", 2)
    monkeypatch.setattr(traces, "PROBES", 2)
    monkeypatch.setattr(spread, "PROBES", 6)
    monkeypatch.setattr(spread, "train_model", lambda run: train_model(replace(run, epochs=1)))
    study = OverheadStudy("overhead", "", repeats=2, warm_up=1)
    study.run(tmp_path, Workers())
    text = study.report(tmp_path)
    for contender in steps.contenders():
        assert f"| {contender.label} " in text
    for name in (
        "pytorch_optimizer.SAM",
        "rsam, one batch ",
        "PyHessian, one batch",
        "curvlinops, one batch",
        "wide_plain_cnn, xtrace",
        "Fisher trace, exact",
        "margins at 4 layers",
        "plane along geodesics",
    ):
        assert f"| {name}" in text, name
    for case in small:
        assert f"| {case.label} " in text
    for batch in savings.LIMITS:
        assert f"| {batch} " in text
    for limit in (
        "at most 1.05 times",
        "at most 1.03 times",
        "target speed-up",  # every case reaches it, or the text names those that do not
        "at most 2.3 gradient evaluations, ",
        "at least 2.5 times",
        " the target of half.",
        "at most 4 epochs of gradients.",
        "under the target of 60.",
    ):
        assert limit in text, limit
    assert text.count(" plain steps.") == 2


def test_that_operations_are_counted_once_each_and_the_profilers_not() -> None:
    x = torch.ones(3)

    def step() -> None:
        with torch.autograd.profiler.record_function("a mark"):
            (x + x).mul_(2)

    assert optimizers.operations(step) == 2


def test_that_the_peak_is_what_is_held_at_once() -> None:
    def run() -> None:
        torch.empty(1000)  # freed immediately
        first = torch.empty(2000)
        second = torch.empty(3000)
        del first, second

    assert memory.peak(run) == 4 * 5000


def test_that_an_interrupted_run_goes_on_with_the_sections_that_have_no_row(tmp_path, monkeypatch) -> None:
    measured: list[str] = []

    def part(name: str, fail: bool = False) -> _Part:
        def measure() -> dict:
            measured.append(name)
            if fail:
                raise KeyboardInterrupt
            return {"seconds": [0.1]}

        return _Part(measure, lambda data: None)  # type: ignore[arg-type,return-value]

    def parts(*of: _Part) -> Callable[[object], dict[Measurement, _Part]]:
        return lambda self: {Measurement(name): one for name, one in zip("abc", of, strict=True)}

    study = OverheadStudy("overhead", "")
    monkeypatch.setattr(OverheadStudy, "_parts", parts(part("a"), part("b", fail=True), part("c")))
    with pytest.raises(KeyboardInterrupt):
        study.run(tmp_path, Workers())
    with pytest.raises(NothingToReport, match="1 of 3 sections"):
        study.report(tmp_path)
    monkeypatch.setattr(OverheadStudy, "_parts", parts(part("a"), part("b"), part("c")))
    study.run(tmp_path, Workers())
    assert "".join(measured) == "abbc"
    assert {row.data["seconds"][0] for row in study.rows(tmp_path).values()} == {0.1}
