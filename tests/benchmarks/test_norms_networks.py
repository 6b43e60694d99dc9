"""Networks with and without batch norm and skip connections, and what is measured of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.studies.norms_and_skips import measurement
from benchmarks.studies.norms_and_skips.design import VARIANTS, Design, Variant
from benchmarks.studies.norms_and_skips.measurement import landscape, measure
from benchmarks.studies.norms_and_skips.training import measured_after
from benchmarks.studies.norms_and_skips.units import in_units, kernels
from benchmarks.workloads.networks.resnets import CifarResNet
from benchmarks.workloads.residual import Residual, initialise
from rsam.curvature import RiemannianHessian, trace
from tests.benchmarks.made_norms import TINY, made

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


def test_that_directions_of_a_landscape_are_not_those_of_the_initial_weights(monkeypatch) -> None:
    model = CifarResNet((3, 8, 8), 10, depth=8, batch_norm=True, skip=True, width=8)
    initialise(model, seed=0)
    drawn: list[list[Tensor]] = []
    monkeypatch.setattr(
        measurement.rsam.curvature.landscape, "normalize_filters", lambda params, u: drawn.append(u) or u
    )
    landscape(model, (torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)), seed=0)
    for direction in drawn:
        for p, u in zip(model.parameters(), direction, strict=True):
            if p.numel() > 500:  # the cosine of independent directions is 1/sqrt(n), less than a fifth of this
                assert abs(torch.cosine_similarity(p.flatten(), u.flatten(), dim=0)) < 0.25


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
        generator = torch.Generator().manual_seed(1_000_000)
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
