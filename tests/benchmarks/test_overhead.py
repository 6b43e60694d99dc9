"""That costs are compared within each repeat, and all contenders are reported."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.runs.parallel import Workers
from benchmarks.runs.training import train_model
from benchmarks.studies.overhead import OverheadStudy, curvature, steps, timing


def test_that_a_step_is_compared_with_its_parts() -> None:
    times = {"gradient": [1.0, 2.0, 100.0], "base step": [0.5, 1.0, 1.0], "step": [3.0, 6.0, 402.0]}
    assert steps.step_ratio(times) == pytest.approx(1.2)  # of 3/2.5, 6/5 and 402/201
    assert timing.median_ratio(times, "step", "gradient") == pytest.approx(3.0)
    assert timing.milliseconds(times, "gradient") == pytest.approx(2000)


def test_that_parts_are_timed_in_turn_after_the_warm_up() -> None:
    calls: list[str] = []
    times = timing.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, 2, "")
    assert "".join(calls) == "ab" * 5
    assert {name: len(of) for name, of in times.items()} == {"a": 3, "b": 3}


def test_that_every_contender_is_reported_with_its_limit(tmp_path, monkeypatch) -> None:
    # what is measured, in little
    monkeypatch.setattr(curvature, "_BATCH", 8)
    monkeypatch.setattr(curvature, "_PROBES", 2)
    monkeypatch.setattr(curvature, "_SPREAD_PROBES", 6)
    monkeypatch.setattr(curvature, "train_model", lambda run: train_model(replace(run, epochs=1)))
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
    ):
        assert f"| {name}" in text, name
    for limit in ("at most 1.15.", "at most 2.3 gradient evaluations.", "at least 2.5 times", "at most half."):
        assert limit in text, limit
    assert text.count("plain ones.") == 2
