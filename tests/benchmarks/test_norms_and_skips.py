"""Effects of batch norm and skip connections, verdicts, the study and its report."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.run import Run
from benchmarks.runs.parallel import Workers
from benchmarks.studies import STUDIES
from benchmarks.studies.norms_and_skips import measurement
from benchmarks.studies.norms_and_skips.design import VARIANTS, Design
from benchmarks.studies.norms_and_skips.effects import MEASURES, at_end, at_loss, common, effects, matched
from benchmarks.studies.norms_and_skips.figures import draw_landscapes
from benchmarks.studies.norms_and_skips.report import _effects, _verdicts
from benchmarks.studies.norms_and_skips.rules import answer
from benchmarks.studies.norms_and_skips.study import NormsAndSkipsStudy
from benchmarks.studies.norms_and_skips.training import Trajectory, follow
from tests.benchmarks.comparisons import table_of
from tests.benchmarks.made_norms import TINY, made
from tests.benchmarks.verdicts import assert_is_test_of


def test_that_effects_are_those_of_a_model_with_known_effects() -> None:
    networks = {
        (v, seed): made(TINY.run(8, v, seed, 0.05), traces=(1.0, factor * 2.0**seed))
        for v, factor in zip(VARIANTS, (2 * 3 * 5, 2, 3, 1), strict=True)  # batch norm 2, skips 3, together 5 more
        for seed in range(3)
    }
    found = effects(networks, lambda t: at_end(t, MEASURES["trace"]))
    assert found["interaction"] == pytest.approx([math.log(5)] * 3)
    assert found["batch norm"] == pytest.approx([math.log(2) + math.log(5) / 2] * 3)
    assert found["skips"] == pytest.approx([math.log(3) + math.log(5) / 2] * 3)
    key = (VARIANTS[0], 1)
    networks[key] = replace(networks[key], diverged=True)
    assert len(effects(networks, lambda t: at_end(t, MEASURES["trace"]))["skips"]) == 2


def test_that_logarithms_are_interpolated_in_the_loss() -> None:
    t = made(TINY.run(8, VARIANTS[0], 0, 0.05), losses=(2.5, 2.0, 1.0, 0.5), traces=(1.0, 4.0, 16.0, 7.0))
    assert at_loss(t, MEASURES["trace"], 1.5) == pytest.approx(math.log(8))
    assert at_loss(t, MEASURES["trace"], 1.0) == pytest.approx(math.log(16))
    assert at_loss(t, MEASURES["trace"], 0.4) is None
    assert at_loss(t, MEASURES["trace"], 2.6) is None
    assert at_loss(replace(t, diverged=True), MEASURES["trace"], 1.5) is None  # though it reached that before
    negative = made(t.run, losses=(2.0, 1.0, 0.5), traces=(-1.0, 4.0, 16.0))
    assert at_loss(negative, MEASURES["trace"], 1.5) is None
    level = made(t.run, losses=(1.0, 1.0, 0.5), traces=(2.0, 4.0, 16.0))  # a loss that stays says nothing of the way
    assert at_loss(level, MEASURES["trace"], 1.0) == pytest.approx(math.log(4))
    untrained = replace(t, checkpoints=[replace(t.checkpoints[0], epoch=0), *t.checkpoints[1:]])
    assert at_loss(untrained, MEASURES["trace"], 2.2) is None


def test_that_measures_are_what_they_are_called() -> None:
    (checkpoint, _) = made(TINY.run(8, VARIANTS[0], 0, 0.05), accuracy=0.7).checkpoints
    gradient = {"loss": [2.0, None, 1.5, 1.8], "change": [0.0, 0.5, None, 0.9], "distance": [0.0, 0.25, 0.5, 0.6]}
    eigenvalues = {"eigenvalue_1": 4.0, "eigenvalue_2": 3.0, "eigenvalue_3": 2.0}
    curvature = {"unit_trace": 3.0, "trace": 7.0, **eigenvalues, "smallest": -1.0}
    known = replace(checkpoint, gradient=gradient, curvature=curvature)
    values = {name: measure.of(known) for name, measure in MEASURES.items()}
    assert values == {
        "unit_trace": 3.0,
        "trace": 7.0,
        **eigenvalues,
        "negative": 1 / 4,
        "range": pytest.approx(0.5),
        "change": 0.9,
        "smoothness": 2.0,
        "gap": pytest.approx(10),
        "test_error": pytest.approx(30),
        "loss_gap": pytest.approx(0),
    }
    unknown = replace(checkpoint, gradient={}, curvature={})
    assert [name for name, measure in MEASURES.items() if measure.value(unknown) is None] == [*MEASURES][:9]


def test_that_networks_are_compared_at_the_lowest_loss_that_three_quarters_of_the_seeds_reach() -> None:
    ends = {0: 0.61, 1: 0.81, 2: 0.75, 3: 1.9}
    networks = {
        (v, seed): made(TINY.run(8, v, seed, 0.05), losses=(2.0, end if v == VARIANTS[2] else 0.3))
        for v in VARIANTS
        for seed, end in ends.items()
    }
    assert matched(networks) == 0.9
    assert matched({key: t for key, t in networks.items() if key[0] != VARIANTS[1]}) is None
    few = {key: t for key, t in networks.items() if key[1] in (1, 3)}
    assert matched(few) == 1.9
    for v in VARIANTS:  # some start below what the others reach
        few[v, 0] = made(TINY.run(8, v, 0, 0.05), losses=(1.5, 0.3))
    assert matched(few) is None
    assert common(few) == "at most 2 of 3 seeds reach the same one (0.9) with all four, and 3 are required"


def test_that_verdicts_follow_the_rules() -> None:
    noise = np.array([-0.01, 0.0, 0.01, 0.005, -0.005, 0.0, 0.01, -0.01])
    down, up, unclear = list(noise - 1), list(noise + 1), list(100 * noise)
    assert answer({8: down, 14: down}, {8: down, 14: down}, 2).curvature == "lowers"
    assert answer({8: down, 14: down}, {8: down, 14: down}, 2).gap == "follows"
    assert answer({8: up, 14: up}, {8: up, 14: up}, 2).gap == "follows"
    assert answer({8: up, 14: up}, {8: down, 14: down}, 2).curvature == "raises"
    assert answer({8: up, 14: up}, {8: down, 14: down}, 2).gap == "goes the other way"
    assert answer({8: down, 14: up}, {8: down, 14: down}, 2).curvature == "undecided"
    assert answer({8: down, 14: up}, {8: down, 14: down}, 2).gap == "undecided"
    assert answer({8: down, 14: unclear}, {8: down, 14: down}, 2).curvature == "undecided"
    assert answer({8: down, 14: down}, {8: down, 14: unclear}, 2).gap == "undecided"
    assert answer({8: down}, {8: [1.0]}, 1).gap == "undecided"  # of one seed no interval is known
    alone = answer({8: down}, {8: down}, 2)  # of the other depth nothing is known
    assert (alone.curvature, alone.gap) == ("undecided", "undecided")
    assert_is_test_of(alone.of_curvature[8], down, 4)
    found = answer({8: down, 14: unclear}, {8: up, 14: down}, 2)
    for of_depths, values in ((found.of_curvature, (down, unclear)), (found.of_gap, (up, down))):
        for comparison, of_depth in zip(of_depths.values(), values, strict=True):
            assert_is_test_of(comparison, of_depth, 4)  # two factors at two depths


# -- study -----------------------------------------------------------------------------------------------------------


def test_that_training_is_repeatable_and_not_changed_by_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("POINTS", 2), ("CURVATURE", 32), ("PROBES", 2), ("_LANCZOS", 4)):
        monkeypatch.setattr(measurement, name, value)
    run = TINY.run(8, VARIANTS[0], 0, 0.05)
    found = follow(run)
    assert [c.epoch for c in found.checkpoints] == [0, 1, 2]
    assert found.plane and found.losses[1] < found.losses[0]
    monkeypatch.setattr("benchmarks.studies.norms_and_skips.training._Training._look", lambda *_: None)
    monkeypatch.setattr("benchmarks.studies.norms_and_skips.training._Training.plane", lambda _: [])
    assert follow(run).losses == found.losses


def test_that_a_diverged_network_is_told() -> None:
    found = follow(replace(TINY.run(8, VARIANTS[3], 1, 1e20), heldout="validation"))
    assert found.diverged
    assert found.checkpoints == []


def _filled(directory: Path, design: Design, **options) -> NormsAndSkipsStudy:
    """Write made rows of all networks, and of all trials."""
    study = NormsAndSkipsStudy("norms_and_skips", "", design)
    for depth in design.depths:
        for run in design.trials(depth).values():
            study._results(directory).append(made(run))
        for (v, seed), run in design.networks(depth, min(design.rates)).items():
            factor = (1 + 0.01 * seed) * (0.5 if v.batch_norm else 1)
            gap = made(run, traces=(10 * factor, 20 * factor), accuracy=0.5 + 0.001 * seed)
            study._results(directory).append(gap)
    return study


def test_that_an_interrupted_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = replace(TINY, rates=(0.05, 0.01))
    study = _filled(tmp_path, design)
    path = tmp_path / "rows.jsonl"
    rows = path.read_text().splitlines()
    trained: list[Run] = []

    def train(run: Run) -> Trajectory:
        trained.append(run)
        return made(run)

    monkeypatch.setattr("benchmarks.studies.norms_and_skips.study.follow", train)
    monkeypatch.setattr("benchmarks.studies.norms_and_skips.study.collect", in_this_process)
    study.run(tmp_path, Workers(1))
    assert trained == []
    path.write_text("\n".join([*rows[:3], *rows[4:-1]]) + "\n")  # without a trial, and without a network
    study.run(tmp_path, Workers(1))
    assert [run.heldout for run in trained] == ["validation", "test"]
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert sorted(keys) == sorted(json.loads(line)["key"] for line in rows)


def in_this_process(runs, train, results, workers) -> None:
    for run in runs:
        if run not in results.find(runs):
            results.append(train(run))


def test_that_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    study = _filled(tmp_path, TINY)
    run = TINY.run(8, VARIANTS[0], 0, 0.05)
    (found,) = study._results(tmp_path).find([run]).values()
    assert asdict(found) == asdict(made(run, traces=(5.0, 10.0)))


def test_that_the_report_leads_with_the_landscapes_and_the_answers(tmp_path: Path, cheap) -> None:
    study = _filled(tmp_path, replace(TINY, depths=(8, 14), seeds=4, rates=(0.05, 0.1)))
    parts = study.report(tmp_path).split("\n\n")
    assert parts[0].startswith("# ")
    assert parts[1].endswith("?") and "(answer.svg)" in parts[2] and parts[3].startswith("- **")
    answers = parts[3]
    assert "**Batch norm lowers curvature**" in answers
    assert "trace (filters in units of their norms) is multiplied by 0.5 (0.5 to 0.5) with 8 layers; 0.5" in answers
    assert "Whether the gap follows is undecided" in answers  # it is the same in all
    assert "**Skip connections: undecided** whether they lower or raise curvature" in answers
    assert "Preliminary" not in "".join(parts)
    larger = NormsAndSkipsStudy(study.name, "", replace(study.design, seeds=5))
    assert "**Preliminary**: without 4 networks of 8 layers; 4 networks of 14 layers." in larger.report(tmp_path)
    names = ("answer", "curvature", "gradient", "learning", "densities")
    assert all((tmp_path / f"{name}.svg").exists() for name in names)
    assert "32 of" not in answers and any("8 layers: 16 of 16 networks, 0 diverged" in part for part in parts)


def test_that_a_depth_without_a_common_loss_leaves_both_factors_undecided() -> None:
    depths: dict[int, dict] = {8: {}, 14: {}}
    for seed in range(4):
        for v in VARIANTS:
            trace = (10.0 + seed) / (1 + v.batch_norm)
            trained = made(TINY.run(8, v, seed, 0.05), losses=(2.0, 0.5), traces=(trace, trace))
            depths[8][v, seed] = trained
            untrained = seed < 2 and v.skip and not v.batch_norm
            depths[14][v, seed] = replace(trained, checkpoints=trained.checkpoints[:1]) if untrained else trained
    norm, skips, apart = _verdicts(replace(TINY, depths=(8, 14)), depths)
    assert norm.startswith("**Batch norm: undecided**, since the rule requires every depth. At equal training loss")
    assert "is multiplied by 0.5 (0.5 to 0.5) with 8 layers. Whether" in norm and "14" not in norm
    assert skips.startswith("**Skip connections: undecided**")
    assert apart.startswith("**With 14 layers** the four variants share no training loss")
    assert "at most 2 of 4 seeds reach" in apart
    for seed in (0, 1):
        key = next((v, seed) for v in VARIANTS if v.skip and not v.batch_norm)
        depths[14][key].checkpoints[-1].scores["train_accuracy"] = 0.1 + 0.1 * seed  # the second is not below 20 %
    *_, said, table = _effects(14, depths[14])
    assert "below 20%: skips (seed 0). Without" in said
    assert {row["seeds"] for row in table_of(table)} <= {"3", "0"}
    assert not any("learned nothing" in part for part in _effects(8, depths[8]))


def test_that_the_same_rows_make_the_same_picture(tmp_path: Path) -> None:
    networks = {(v, 0): made(TINY.run(8, v, 0, 0.05)) for v in VARIANTS[1:]}  # one is missing
    drawn = []
    for _ in range(2):
        assert draw_landscapes({8: networks}, tmp_path / "landscapes.svg")
        drawn.append((tmp_path / "landscapes.svg").read_bytes())
    assert drawn[0] == drawn[1]
    without = {key: replace(t, plane=[]) for key, t in networks.items()}
    assert not draw_landscapes({8: without}, tmp_path / "none.svg")


def test_that_the_study_is_skipped_without_its_data(directory: Path, capsys) -> None:
    STUDIES["norms_and_skips"].run(directory / "results", Workers(1))
    said = capsys.readouterr().err
    assert "skipped: CIFAR-10" in said
    assert not (directory / "results" / "rows.jsonl").exists()
