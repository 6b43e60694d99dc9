"""Batch norm and skip connections: the networks, what is measured, effects, verdicts and the report."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.run import Run
from benchmarks.runs.parallel import Workers
from benchmarks.studies import STUDIES
from benchmarks.studies.norms_and_skips import measurement
from benchmarks.studies.norms_and_skips.design import VARIANTS, Design, Variant
from benchmarks.studies.norms_and_skips.effects import MEASURES, at_end, at_loss, effects, matched
from benchmarks.studies.norms_and_skips.figures import draw_landscapes
from benchmarks.studies.norms_and_skips.measurement import Checkpoint, landscape, measure
from benchmarks.studies.norms_and_skips.rules import answer
from benchmarks.studies.norms_and_skips.study import NormsAndSkipsStudy
from benchmarks.studies.norms_and_skips.training import Trajectory, follow, measured_after
from benchmarks.studies.norms_and_skips.units import in_units, kernels
from benchmarks.workloads.networks.resnets import CifarResNet
from benchmarks.workloads.residual import Residual, initialise
from rsam.curvature import RiemannianHessian, trace
from tests.benchmarks.verdicts import assert_is_test_of

TINY = Design("mini", "fashion_mnist_mini", 256, (8,), width=1, stride=4, epochs=2, seeds=2, rates=(0.05,))
SHAPE = (1, 8, 8)


def network(batch_norm: bool, skip: bool, seed: int = 0, width: int = 2) -> CifarResNet:
    model = CifarResNet(SHAPE, 3, depth=8, batch_norm=batch_norm, skip=skip, width=width)
    initialise(model, seed)
    return model.double()


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return inputs, torch.arange(count) % 3


# -- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [8, 14])
def test_that_the_four_variants_of_a_seed_start_from_the_same_kernels_and_head(depth: int) -> None:
    models = [Residual("fashion_mnist_mini", 256, depth, v.batch_norm, v.skip, 2).network(seed=3) for v in VARIANTS]
    for model in models[1:]:
        for name, weight in kernels(models[0]).items():
            torch.testing.assert_close(model.get_parameter(name), weight, rtol=0, atol=0)
        torch.testing.assert_close(model.head.weight, models[0].head.weight, rtol=0, atol=0)
        for name, p in model.named_parameters():
            if p.dim() == 1:  # biases, and shifts and scales of batch norm
                assert float(p.detach().abs().max()) in ((1.0,) if "norm.weight" in name else (0.0,))
    other = Residual("fashion_mnist_mini", 256, depth, True, True, 2).network(seed=4)
    assert not torch.equal(other.stem.weight, models[0].stem.weight)


def test_that_kernels_start_in_the_size_of_he_and_no_branch_is_scaled_down() -> None:
    model = CifarResNet((3, 32, 32), 10, depth=8, batch_norm=False)
    initialise(model, 0)
    for name, weight in kernels(model).items():
        expected = math.sqrt(2 / weight[0].numel())
        # the deviation of n numbers has a relative error of 1 / sqrt(2 n); five of them
        assert float(weight.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.numel())), name


def test_that_without_skips_a_network_is_a_chain_of_layers() -> None:
    model = network(batch_norm=False, skip=False)
    x, _ = batch()
    chain = nn.Sequential(model.stem, nn.ReLU())
    for block in model.blocks:
        chain.extend([block.first, nn.ReLU(), block.second, nn.ReLU()])
    torch.testing.assert_close(model(x), model.head(chain(x).mean((2, 3))))


def test_that_runs_are_paired_and_all_different() -> None:
    design = Design()
    for depth in design.depths:
        runs = design.networks(depth, 0.05)
        assert len({run.key for run in runs.values()}) == len(runs) == 4 * design.seeds
        assert design.seeds >= 8
        for seed in range(design.seeds):
            of_seed = [runs[v, seed] for v in VARIANTS]
            same = {replace(r, workload=replace(r.workload, batch_norm=True, skip=True)) for r in of_seed}
            assert len(same) == 1
        assert design.TRIAL_SEED not in {run.seed for run in runs.values()}


def test_that_variants_of_a_seed_see_the_same_images_in_the_same_order() -> None:
    labels = []
    for v in VARIANTS:
        problem = TINY.run(8, v, 1, 0.05).workload.prepare(1, "test")
        labels.append([targets.tolist() for epoch in range(2) for _, targets in problem.batches(epoch)])
    assert labels.count(labels[0]) == len(VARIANTS)


def test_that_learning_rates_are_chosen_on_images_that_are_neither_trained_nor_tested_on() -> None:
    workload = Residual("fashion_mnist_mini", 256, 8, True, True, 1)
    sets, whole = workload.sets(), workload.load()
    trial, final = workload.data("validation"), workload.data("test")
    assert torch.equal(final.heldout_images, whole.heldout_images)
    assert torch.equal(trial.train_images, final.train_images)
    assert torch.equal(trial.heldout_images, sets.unlabelled)
    trained = {image.numpy().tobytes() for image in final.train_images}
    assert not trained & {image.numpy().tobytes() for image in trial.heldout_images}


def test_that_the_rate_is_the_one_at_which_the_worst_variant_is_best() -> None:
    design = replace(TINY, rates=(0.1, 0.01, 0.03))
    accuracies = {0.01: (0.5, 0.5, 0.5, 0.4), 0.03: (0.6, 0.6, 0.6, 0.45), 0.1: (0.9, 0.9, 0.9, 0.2)}
    rows = {run: made(run, accuracy=accuracies[rate][VARIANTS.index(v)]) for (rate, v), run in design.trials(8).items()}
    assert design.rate(8, rows) == 0.03
    run = design.trials(8)[0.03, VARIANTS[0]]
    assert design.rate(8, {**rows, run: replace(rows[run], diverged=True)}) == 0.01
    del rows[run]
    assert design.rate(8, rows) is None


# -- measures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v", VARIANTS)
def test_that_in_units_of_the_filters_norms_the_function_is_the_same_and_filters_have_length_one(v: Variant) -> None:
    model, (x, _) = network(v.batch_norm, v.skip), batch()
    function, params = in_units(model)
    torch.testing.assert_close(function(x), model(x))
    assert [name for name, _ in params] == list(kernels(model))
    for _, unit in params:
        torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.ones(len(unit), dtype=torch.float64))


@pytest.mark.parametrize("v", VARIANTS)
def test_that_the_trace_in_units_is_that_of_the_scaled_hessian_without_the_radial_direction(v: Variant) -> None:
    # on a sphere of radius r in units of r: r² (tr H - w H w / r²) - (n - 1) <grad, w>, for each filter
    model, (x, y) = network(v.batch_norm, v.skip, width=1), batch()
    function, params = in_units(model)
    found = trace(RiemannianHessian(function, nn.CrossEntropyLoss(), params, (x, y)), method="exact")
    expected = 0.0
    for name, weight in kernels(model).items():
        for k, w in enumerate(weight.detach()):

            def loss(w: Tensor, name: str = name, k: int = k, others: Tensor = weight) -> Tensor:
                moved = torch.stack([w if i == k else other for i, other in enumerate(others.detach())])
                return cross_entropy(torch.func.functional_call(model, {name: moved}, (x,)), y)

            n, r = w.numel(), w.norm()
            hessian = torch.autograd.functional.hessian(loss, w).reshape(n, n)
            gradient = torch.autograd.functional.jacobian(loss, w).flatten()
            u = w.flatten() / r
            expected += float(r**2 * (hessian.trace() - u @ hessian @ u) - (n - 1) * r * (gradient @ u))
    assert float(found) == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_that_rescaled_layers_have_the_same_curvature_in_units() -> None:
    traces = []
    for factor in (1.0, 3.0):
        model = network(batch_norm=False, skip=False, width=1)
        with torch.no_grad():  # a layer is larger and the next one smaller; biases are 0
            model.blocks[0].first.weight *= factor
            model.blocks[0].second.weight /= factor
        function, params = in_units(model)
        traces.append(float(trace(RiemannianHessian(function, nn.CrossEntropyLoss(), params, batch()), method="exact")))
    assert traces[0] == pytest.approx(traces[1], rel=1e-8)


def test_that_a_network_is_measured_as_it_is_and_left_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "CURVATURE", 64)
    workload = TINY.run(8, VARIANTS[0], 0, 0.05).workload
    model, data = workload.network(0), workload.data("test")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = measure(model, data, 1, 0.05, spectrum=True)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)

    x, y = data.train_images[:64], data.train_labels[:64]
    params = list(model.parameters())
    model.train()
    loss = cross_entropy(model(x), y)
    gradient = torch.autograd.grad(loss, params, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    unit = torch.eye(len(flat))
    rows = torch.autograd.grad(flat, params, unit, retain_graph=True, is_grads_batched=True, materialize_grads=True)
    values = torch.linalg.eigvalsh(torch.cat([p.flatten(1) for p in rows], 1).double())
    top = [found.curvature[f"eigenvalue_{k}"] for k in (1, 2, 3)]
    scale = float(values.abs().max())
    assert top == pytest.approx(values.flip(0)[:3].tolist(), abs=0.04 * scale)  # asked for 0.02 of the norm
    assert found.curvature["smallest"] == pytest.approx(float(values[0]), abs=0.02 * scale)  # for 0.01
    assert abs(found.curvature["trace"] - float(values.sum())) < 6 * found.curvature["trace_error"]

    norm = float(flat.detach().norm())
    assert found.gradient["norm"][0] == pytest.approx(norm, rel=1e-4)
    assert found.gradient["distance"] == pytest.approx([k * 0.05 * norm for k in measurement.LENGTHS], rel=1e-4)
    with torch.no_grad():  # a step of one learning rate
        for p, g in zip(params, gradient, strict=True):
            p -= 0.05 * g
    moved = cross_entropy(model(x), y)
    change = torch.cat([g.flatten() for g in torch.autograd.grad(moved, params)]) - flat.detach()
    assert found.gradient["loss"][0] == pytest.approx(loss.item(), rel=1e-4)
    assert found.gradient["loss"][2] == pytest.approx(moved.item(), rel=1e-4)
    assert found.gradient["change"][2] == pytest.approx(float(change.norm()), rel=1e-3)

    density = found.density
    step = (density["high"] - density["low"]) / (len(density["density"]) - 1)
    assert 0.8 < step * sum(density["density"]) < 1.05  # the bumps at its ends reach beyond the grid


def test_that_landscapes_of_a_seed_move_kernels_alike_and_are_the_loss_in_the_middle(monkeypatch) -> None:
    monkeypatch.setattr(measurement, "POINTS", 3)
    x, y = batch()
    for v in VARIANTS:
        model = network(v.batch_norm, v.skip)
        plane = landscape(model, (x, y), seed=0)
        assert plane[1][1] == pytest.approx(float(cross_entropy(model(x), y)), rel=1e-3)
        assert plane == landscape(model, (x, y), seed=0)
        assert plane != landscape(model, (x, y), seed=1)
        # one step along the first direction, drawn in the order of kernels and head alone
        generator = torch.Generator().manual_seed(0)
        moved = network(v.batch_norm, v.skip)
        with torch.no_grad():
            for p in moved.parameters():
                if p.dim() > 1:
                    d = torch.randn(p.shape, generator=generator).double().flatten(1)
                    d *= p.flatten(1).norm(dim=1, keepdim=True) / d.norm(dim=1, keepdim=True)
                    p += d.reshape(p.shape)
        assert plane[2][1] == pytest.approx(float(cross_entropy(moved(x), y)), rel=1e-3)


def test_that_a_network_is_measured_before_and_after_training_and_closely_at_first() -> None:
    when = measured_after(12)
    assert list(when) == [0, 1, 2, 4, 8, 12]
    assert [epoch for epoch, spectrum in when.items() if spectrum] == [0, 4, 12]
    assert list(measured_after(1)) == [0, 1]


# -- effects and verdicts --------------------------------------------------------------------------------------------


def made(run: Run, losses: tuple[float, ...] = (2.0, 1.0), traces: tuple[float, ...] = (10.0, 20.0), accuracy=0.5):
    checkpoints = [
        Checkpoint(
            epoch,
            {"train_loss": loss, "train_accuracy": accuracy + 0.1, "test_loss": 2.0, "test_accuracy": accuracy},
            {"unit_trace": value, "trace": value, "eigenvalue_1": value / 2, "smallest": -1.0},
            {"norm": [1.0], "loss": [loss, loss - 0.1], "change": [0.0, 0.5], "distance": [0.0, 0.25]},
            {"low": -1.0, "high": value, "density": [0.1, 1.0, 0.1]},
        )
        for epoch, (loss, value) in enumerate(zip(losses, traces, strict=True), start=1)
    ]
    plane = [[2.0, 1.5, None], [1.0, 0.5, 1.0], [2.0, 1.0, 3.0]] if run.seed == 0 else []
    return Trajectory(run, False, checkpoints, list(losses), plane, 3600.0, 1.0, "cpu", "2")


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
    curvature = {"unit_trace": 3.0, "trace": 7.0, "eigenvalue_1": 4.0, "smallest": -1.0}
    known = replace(checkpoint, gradient=gradient, curvature=curvature)
    values = {name: measure.of(known) for name, measure in MEASURES.items()}
    assert values == {
        "unit_trace": 3.0,
        "trace": 7.0,
        "eigenvalue_1": 4.0,
        "negative": 1 / 4,
        "range": pytest.approx(0.5),
        "change": 0.9,
        "smoothness": 2.0,
        "gap": pytest.approx(10),
        "test_error": pytest.approx(30),
        "loss_gap": pytest.approx(0),
    }
    unknown = replace(checkpoint, gradient={}, curvature={})
    assert [name for name, measure in MEASURES.items() if measure.value(unknown) is None] == [*MEASURES][:7]


def test_that_networks_are_compared_at_the_lowest_loss_that_three_quarters_of_the_seeds_reach() -> None:
    ends = {0: 0.61, 1: 0.81, 2: 0.75, 3: 1.9}
    networks = {
        (v, seed): made(TINY.run(8, v, seed, 0.05), losses=(2.0, end if v == VARIANTS[2] else 0.3))
        for v in VARIANTS
        for seed, end in ends.items()
    }
    assert matched(networks) == 0.9
    assert matched({key: t for key, t in networks.items() if key[0] != VARIANTS[1]}) is None


def test_that_verdicts_follow_the_rules() -> None:
    noise = np.array([-0.01, 0.0, 0.01, 0.005, -0.005, 0.0, 0.01, -0.01])
    down, up, unclear = list(noise - 1), list(noise + 1), list(100 * noise)
    assert answer({8: down, 14: down}, {8: down, 14: down}).curvature == "lowers"
    assert answer({8: down, 14: down}, {8: down, 14: down}).gap == "follows"
    assert answer({8: up, 14: up}, {8: up, 14: up}).gap == "follows"
    assert answer({8: up, 14: up}, {8: down, 14: down}).curvature == "raises"
    assert answer({8: up, 14: up}, {8: down, 14: down}).gap == "goes the other way"
    assert answer({8: down, 14: up}, {8: down, 14: down}).curvature == "undecided"
    assert answer({8: down, 14: up}, {8: down, 14: down}).gap == "undecided"
    assert answer({8: down, 14: unclear}, {8: down, 14: down}).curvature == "undecided"
    assert answer({8: down, 14: down}, {8: down, 14: unclear}).gap == "undecided"
    assert answer({8: down}, {8: [1.0]}).gap == "undecided"  # of one seed no interval is known
    found = answer({8: down, 14: unclear}, {8: up, 14: down})
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
    assert "trace, filters in units of their norms, is multiplied by 0.5 (0.5 to 0.5) with 8 layers; 0.5" in answers
    assert "whether the gap follows is undecided" in answers  # it is the same in all
    assert "**Skip connections: undecided** whether they lower or raise curvature" in answers
    assert "Preliminary" not in "".join(parts)
    larger = NormsAndSkipsStudy(study.name, "", replace(study.design, seeds=5))
    assert "**Preliminary**: without 4 networks of 8 layers; 4 networks of 14 layers." in larger.report(tmp_path)
    names = ("answer", "curvature", "gradient", "learning", "densities")
    assert all((tmp_path / f"{name}.svg").exists() for name in names)
    assert "32 of" not in answers and any("8 layers: 16 of 16 networks, 0 diverged" in part for part in parts)


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
