"""That ratios of costs are formed within each repeat, and all contenders are reported."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.runs.parallel import Workers
from benchmarks.runs.training import train_model
from benchmarks.studies.overhead import (
    OverheadStudy,
    curvature,
    margins,
    memory,
    optimizers,
    savings,
    spread,
    steps,
    timing,
    traces,
)
from benchmarks.studies.overhead.factors import factor_groups

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "benchmarks" / "results" / "overhead" / "README.md"


def test_that_a_step_is_compared_with_its_parts() -> None:
    times = {"gradient": [1.0, 2.0, 100.0], "base step": [0.5, 1.0, 1.0], "step": [3.0, 6.0, 402.0]}
    assert steps.step_ratio(times) == pytest.approx(1.2)  # the median of 3/2.5, 6/5 and 402/201
    assert timing.median_ratio(times, "step", "gradient") == pytest.approx(3.0)
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
    ):
        assert f"| {name}" in text, name
    for case in small:
        assert f"| {case.label} " in text
    for batch in savings.LIMITS:
        assert f"| {batch} " in text
    for limit in (
        "at most 1.05.",
        "at most 1.03.",
        "hort of ",  # no case falls short, or the text names those that do
        "at most 2.3 gradient evaluations.",
        "at least 2.5 times",
        "at most half.",
        "at most 4 epochs of gradients.",
    ):
        assert limit in text, limit
    assert text.count("plain ones.") == 2


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


def test_that_the_picture_shows_the_factors_of_the_table_and_which_are_short() -> None:
    text = MEASURED.read_text(encoding="utf-8")
    groups = factor_groups(text)
    assert [group.mark for group in groups] == [15, 6, 1, 0.87]
    assert sum(len(group.lines) for group in groups) == 2 * len(optimizers.CASES)
    (verdict,) = re.findall(r"\*\*Optimizers:\*\* (.*)", text)
    label = ""
    for group in groups:
        for line in group.lines:
            short = line.interval.mean < group.mark
            assert (line.tone, "short" in line.verdict) == (("worse", True) if short else ("better", False))
            label = line.label.removesuffix(", SGD") if line.label != "Adam" else label
            assert label in verdict or not short
