"""The population: its design, what is measured, and how it is trained."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.run import Run
from benchmarks.runs.parallel import Workers
from benchmarks.studies import STUDIES
from benchmarks.studies.population import measurement
from benchmarks.studies.population.design import AXES, PLACES, Design, Place, members
from benchmarks.studies.population.measurement import STATISTICS, Checkpoint, _mixed, _relative_flatness, _Scaled
from benchmarks.studies.population.rescaling import filters, on_spheres
from benchmarks.studies.population.rules import FROZEN, HELD_BACK
from benchmarks.studies.population.study import PopulationStudy
from benchmarks.studies.population.training import FRACTIONS, PREDICTED, follow
from benchmarks.workloads.chains import Chains
from benchmarks.workloads.networks.chain import chain
from benchmarks.workloads.subsets import Sets
from rsam.curvature import RiemannianHessian, trace
from tests.benchmarks.made_population import by_margins, population

TINY = Chains("mnist1d", 200, 3, 3, True, 0.0, 50, False)


def test_that_there_are_as_many_networks_as_the_claims_ask_for() -> None:
    counts: dict[str, int] = {}
    for design in STUDIES["population"].designs:
        if design.label_noise == (0.0,):
            counts[design.place] = len(members(design))
    assert counts["cifar10"] >= 400
    assert counts["mnist1d"] >= 400
    assert counts["fashion_mnist"] >= 100


def test_that_each_variant_differs_from_its_base_along_its_axis_alone() -> None:
    found = members(Design("cifar10"))
    bases = {m.base: m for m in found if m.axis == "base"}
    for member in found:
        base = bases[member.base]
        differing = [a for a in AXES if member.hyperparameters[a] != base.hyperparameters[a]]
        if member.axis in ("base", "seed", "length and seed"):
            assert differing == (["length"] if "length" in member.axis else [])
            assert (member.seed != base.seed) == ("seed" in member.axis)
        else:
            assert differing == [member.axis]
            assert member.seed == base.seed
    runs = [member.run(PLACES) for member in found]
    assert len({run.key for run in runs}) == len(runs)


def test_that_every_base_has_a_short_and_a_long_network_and_every_axis_is_varied_alike() -> None:
    found = members(Design("cifar10"))
    for base in range(60):
        assert {m.hyperparameters["length"] for m in found if m.base == base} == {"full", "quarter"}
    varied = [sum(m.axis == axis for m in found) for axis in AXES if axis != "length"]
    assert max(varied) - min(varied) <= 1


def test_that_fewer_bases_are_the_first_of_more() -> None:
    assert members(Design("cifar10", bases=5)) == members(Design("cifar10"))[: len(members(Design("cifar10", bases=5)))]


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 40)])
def test_that_filters_on_spheres_make_the_same_function(shape: tuple[int, ...], batch_norm: bool) -> None:
    torch.manual_seed(0)
    network = chain(shape, 5, width=4, depth=4, batch_norm=batch_norm, dropout=0.5).double()
    for _ in range(3):  # running statistics that are not those of the first weights
        network(torch.randn(50, *shape, dtype=torch.float64))
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    inputs = torch.randn(20, *shape, dtype=torch.float64)
    before = network.eval()(inputs)
    rescaled = on_spheres(network).eval()
    torch.testing.assert_close(rescaled(inputs), before, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(network(inputs), before, rtol=0, atol=0)
    for weight in filters(rescaled):
        torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.ones(len(weight), dtype=torch.float64))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_that_curvature_on_spheres_does_not_change_with_the_sizes_of_filters(batch_norm: bool) -> None:
    torch.manual_seed(0)
    network = chain((1, 16), 3, width=2, depth=3, batch_norm=batch_norm).double().eval()
    larger = chain((1, 16), 3, width=2, depth=3, batch_norm=batch_norm).double().eval()
    larger.load_state_dict(network.state_dict())
    with torch.no_grad():  # the second block returns three times as much, which the third one undoes
        second, third = (larger.get_submodule(f"block{i}.convolution") for i in (2, 3))
        second.weight *= 3
        if batch_norm:
            norm = larger.get_submodule("block2.norm")
            norm.running_mean *= 3
            norm.running_var.copy_(9 * norm.running_var + 8 * norm.eps)
        else:
            second.bias *= 3
            third.weight /= 3
    batch = torch.randn(10, 1, 16, dtype=torch.float64), torch.arange(10) % 3
    traces = []
    for one in (network, larger):
        sphere = on_spheres(one).eval()
        hessian = RiemannianHessian(sphere, nn.CrossEntropyLoss(), filters(sphere), batch)
        traces.append(float(trace(hessian, method="exact")))
    assert traces[0] == pytest.approx(traces[1], rel=1e-8)


def test_that_relative_flatness_agrees_with_the_hessian_of_the_head() -> None:
    torch.manual_seed(0)
    network = chain((1, 16), 3, width=2, depth=3).double().eval()
    inputs, head = torch.randn(12, 1, 16, dtype=torch.float64), network.get_submodule("head")
    features = network[:-1](inputs).detach()
    labels = torch.arange(12) % 3

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return cross_entropy(features @ weight.mT + head.bias, labels)

    weight = head.weight.detach()
    hessian = torch.autograd.functional.hessian(loss, weight)  # (s, i, t, j)
    expected = torch.einsum("sm,tm,siti->", weight, weight, hessian)
    assert _relative_flatness(network, inputs) == pytest.approx(float(expected), rel=1e-8)


def test_that_a_scaled_operator_is_the_operator_in_other_units() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    batch = torch.randn(7, 3, dtype=torch.float64), torch.arange(7) % 2
    hessian = RiemannianHessian(model, nn.CrossEntropyLoss(), list(model.parameters()), batch)
    factors = [torch.rand_like(p) for p in model.parameters()]
    identity, flat = torch.eye(8, dtype=torch.float64), torch.cat([f.flatten() for f in factors])
    expected = flat[:, None] * (hessian @ identity) * flat
    torch.testing.assert_close(_Scaled(hessian, [f.detach() for f in factors]) @ identity, expected)


def test_that_mixtures_are_of_two_examples_of_a_class() -> None:
    labels = torch.tensor([0, 1, 0, 1, 1])
    inputs = torch.tensor([1.0, 10.0, 3.0, 20.0, 60.0])[:, None]
    mixed, classes = _mixed(inputs, labels)
    assert mixed.flatten().tolist() == [2, 2, 35, 15, 40]
    assert classes.tolist() == [0, 0, 1, 1, 1]


def test_that_a_network_is_measured_at_tenths_and_where_its_loss_falls_below_a_level() -> None:
    run = Run(TINY, "sgd", 0, 0.1, 20)
    found = follow(run)
    assert not found.diverged
    assert [c.fraction for c in found.checkpoints if c.fraction in FRACTIONS] == list(FRACTIONS)
    assert [c.fraction for c in found.checkpoints if c.predictions] == list(PREDICTED)
    assert all(len(c.predictions) in (0, 200) for c in found.checkpoints)
    levels = [c for c in found.checkpoints if c.levels]
    assert levels  # it learns
    for checkpoint in levels:
        assert checkpoint.scores["train_loss"] <= min(checkpoint.levels) + 1e-4  # five digits
        assert checkpoint.curvature["riemannian_trace"] is not None
    assert math.isfinite(found.checkpoints[-1].curvature["euclidean_top_eigenvalue"])
    assert len(found.losses) == 20
    # four batches an epoch; losses are kept to five digits
    assert found.checkpoints[-1].others["loss_sum"] == pytest.approx(4 * sum(found.losses), rel=1e-4)
    again = follow(run)
    assert again.losses == found.losses
    assert again.checkpoints[-1].scores == found.checkpoints[-1].scores
    assert again.checkpoints[-1].curvature == found.checkpoints[-1].curvature


#: Five digits: half a unit of the last one, and rounding.
FIVE = partial(pytest.approx, rel=6e-5)


def moved(**options: bool) -> tuple[nn.Module, list[torch.Tensor], Sets, Checkpoint]:
    """Measure a network with weights and batch statistics that are not its first ones; return it with these."""
    workload = replace(TINY, width=1)
    sets = workload.sets()
    torch.manual_seed(0)
    model = workload.network()
    model(3 * sets.data.train_images)
    start = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    followed = measurement.Followed(workload, model.train(), start)
    chosen = {"curvature": False, "predict": False, **options}
    found = measurement.measure(followed, 0.5, (0.3,), {"loss_sum": 7.0}, **chosen)
    return model.eval(), start, sets, found


def test_that_a_checkpoint_says_what_the_network_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "UNLABELLED", 150)
    model, start, sets, found = moved(predict=True)
    data = sets.data
    assert (found.fraction, found.levels, found.others["loss_sum"], found.curvature) == (0.5, (0.3,), 7.0, {})
    for part, inputs, labels in (
        ("train", data.train_images, data.train_labels),
        ("test", data.heldout_images, data.heldout_labels),
    ):
        outputs = model(inputs).detach()
        assert found.scores[f"{part}_loss"] == FIVE(float(cross_entropy(outputs, labels)))
        assert found.scores[f"{part}_accuracy"] == FIVE(float((outputs.argmax(1) == labels).double().mean()))
    unlabelled = model(sets.unlabelled[:150]).detach()
    assert found.predictions == "".join(map(str, unlabelled.argmax(1).tolist()))
    assert found.others["confidence"] == FIVE(float(unlabelled.softmax(1).max(1).values.mean()))
    now, then = (torch.cat([p.detach().flatten() for p in of]) for of in (model.parameters(), start))
    assert found.others["norm"] == FIVE(float(now.norm()))
    assert found.others["distance"] == FIVE(float((now - then).norm()))
    example = data.train_images[:1]
    assert found.others["log_path"] == FIVE(math.log(rsam.margins.path_norm(model, example)))
    layers = rsam.margins.spectral_norms(model, example).values()
    assert found.others["log_spectral"] == FIVE(math.log(math.prod(map(float, layers))))


def test_that_margins_are_those_of_their_layers_and_constrained_ones_of_the_leading_components(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measurement, "MARGINS", 120)
    model, _, sets, found = moved()
    x, y = sets.data.train_images, sets.data.train_labels
    batch, centred = (x[:120], y[:120]), x.flatten(1) - x.flatten(1).mean(0)
    modules = {"input": "input", "first": "block1", "middle": "block2", "last": "block3", "output": "output"}
    margins = {k: rsam.margins.margins(model, batch, [v], eps=1e-6)[v] for k, v in modules.items()}
    subspaces = {"input": torch.linalg.svd(centred, full_matrices=False)[2][:8].mT}
    inside = rsam.margins.margins(model, batch, subspaces=subspaces, normalize=False, eps=1e-6)["input"]
    for layer, of_layer in {**margins, "constrained": inside}.items():
        kept = dict(zip(STATISTICS, found.margins[layer], strict=True))
        for log, values in (("", of_layer.numpy()), ("log ", np.log(of_layer[of_layer > 0].numpy()))):
            expected = [*np.quantile(values, (0.25, 0.5, 0.75)), values.mean()]
            # in single precision
            actual = [kept[log + name] for name in ("Q1", "median", "Q3", "mean")]
            assert actual == pytest.approx(expected, rel=1e-3, abs=1e-4), (layer, log)


def test_that_curvature_is_that_of_the_hessian_plain_relative_and_on_spheres(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "CURVATURE", 40)
    # of 141 and of 16 dimensions; errors are about a hundredth of the first traces, and a tenth of the last
    monkeypatch.setattr(measurement, "FEWER", 64)
    monkeypatch.setattr(measurement, "PRODUCTS", 14)
    model, _, sets, found = moved(curvature=True)
    params, curvature = list(model.parameters()), found.curvature
    loss = cross_entropy(model(sets.data.train_images[:40]), sets.data.train_labels[:40])
    gradient = torch.autograd.grad(loss, params, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    identity = torch.eye(len(flat))
    rows = torch.autograd.grad(flat, params, identity, is_grads_batched=True, materialize_grads=True)
    hessian = torch.cat([r.flatten(1) for r in rows], 1).double()
    weights = torch.cat([p.detach().flatten() for p in params])
    assert curvature["euclidean_gradient_norm"] == FIVE(float(flat.detach().norm()))
    # asked for a hundredth of the norm
    values = torch.linalg.eigvalsh(hessian)
    assert curvature["euclidean_top_eigenvalue"] == pytest.approx(
        float(values[-1]), abs=0.02 * float(values.abs().max())
    )
    # in evaluation mode the network is a function of each filter's direction u times its norm r: on its sphere the
    # gradient is r (g - <g, u> u), and the trace r² (tr H - u H u) - (n - 1) r <g, u> with the filter's block H
    squares, total, start = 0.0, 0.0, 0
    for p in params:
        for w in p.detach() if p.dim() == 3 else ():
            block = slice(start, start + w.numel())
            h, g = hessian[block, block], flat.detach()[block].double()
            r, n = float(w.norm()), w.numel()
            u = w.flatten().double() / r
            squares += r**2 * float(g @ g - (g @ u) ** 2)
            total += r**2 * float(h.trace() - u @ h @ u) - (n - 1) * r * float(g @ u)
            start += n
        start += 0 if p.dim() == 3 else p.numel()
    assert curvature["riemannian_gradient_norm"] == pytest.approx(math.sqrt(squares), rel=1e-4)
    diagonal = hessian.diagonal()
    traces = {"euclidean": diagonal.sum(), "relative": (weights**2 * diagonal).sum(), "riemannian": total}
    for name, expected in traces.items():  # of one seed
        assert abs(curvature[f"{name}_trace"] - float(expected)) < 3 * curvature[f"{name}_trace_error"]


def test_that_networks_of_the_population_have_no_validation_data() -> None:
    with pytest.raises(ValueError, match="not tuned: heldout must be 'test', got 'validation'"):
        TINY.prepare(0, "validation")


def test_that_measuring_does_not_change_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = replace(TINY, dropout=0.5, augment=True, spheres=True)
    run = Run(workload, "rsam", 0, 0.1, 4, rho=0.1)
    found = follow(run)
    assert found.checkpoints[-1].curvature["relative_trace"] is not None
    monkeypatch.setattr("benchmarks.studies.population.training._Training._look", lambda *_: None)
    assert follow(run).losses == found.losses


def test_that_a_diverged_network_is_told() -> None:
    assert follow(Run(replace(TINY, batch_norm=False), "sgd", 0, 1e20, 2)).diverged


def test_that_the_set_that_is_held_back_is_shown_to_none_but_frozen_features(tmp_path, monkeypatch) -> None:
    small = Place("signals", "mnist1d", 100, (2, 3, 4, 5), 4)
    places = {"mnist1d": small, HELD_BACK: replace(small, label="held back", dataset="digits")}
    noisy = tuple(Design(place, bases=2, label_noise=(0.2,)) for place in places)
    study = PopulationStudy("population", "", (*(Design(place, bases=2) for place in places), *noisy), places)
    networks = [m for design in study.designs for m in members(design)]
    lost = next(m for m in networks if m.label_noise)
    (made, *_) = population(by_margins, bases=1).values()
    for member in networks:
        if member != lost:
            study._results(tmp_path).append(replace(made, run=member.run(places)))
    given: list = []
    for name in ("report", "all_findings"):
        monkeypatch.setattr(f"benchmarks.studies.population.study.{name}", lambda *args, **_: given.append(args) or {})
    study.report(tmp_path)
    study.claims(tmp_path)
    (by_place, warnings, _, _, frozen, held_back, wrong_labels), (judged,), (learned,) = given
    shown = [m for m in networks if m.place == "mnist1d" and m != lost]
    assert [by_place.keys(), wrong_labels.keys(), judged.keys()] == [{"signals"}] * 3
    assert learned == judged
    assert [*by_place["signals"]] == [*judged["signals"]] == [m for m in shown if not m.label_noise]
    assert [*wrong_labels["signals"]] == [m for m in shown if m.label_noise]
    assert frozen == FROZEN and [*held_back] == [m for m in networks if m.place == HELD_BACK and not m.label_noise]
    assert warnings == ["**Preliminary**: without 1 of 2 networks with wrong labels on signals."]


def test_that_an_interrupted_study_goes_on(tmp_path, here) -> None:
    places = {"signals": Place("made small", "mnist1d", 100, (2, 3, 4, 5), 4)}
    study = PopulationStudy("population", "", (Design("signals", bases=1, varied=0),), places)
    study.run(tmp_path, Workers(1))
    rows = (tmp_path / "rows.jsonl").read_text()
    assert len(rows.splitlines()) == 4  # base, other length, and both with another seed
    study.run(tmp_path, Workers(1))
    assert (tmp_path / "rows.jsonl").read_text() == rows
    [*found] = study.networks(tmp_path).values()
    assert found[0].checkpoints[-1].fraction == 1
