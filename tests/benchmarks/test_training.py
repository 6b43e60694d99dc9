"""That a run is determined by its configuration, and each method is what its name says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import rsam
from benchmarks.methods import METHODS
from benchmarks.run import Run
from benchmarks.runs import training
from benchmarks.runs.measurement import CURVES, FIFTHS, MEASURES
from benchmarks.runs.steps import Tally, gradient_closure
from benchmarks.runs.training import prepare, train, train_model
from benchmarks.studies.images.claims import gap
from benchmarks.studies.images.contestants import CONTESTANTS
from benchmarks.workloads import images as workload
from benchmarks.workloads.images import Images
from tests.benchmarks.training_steps import on, prepared, run_of

# four steps
TINY = Run(
    Images("digits", "tiny_cnn", batch_size=300), "sgd", 0, 0.05, epochs=1, weight_decay=5e-4, measures=(CURVES,)
)


def tiny(name: str) -> Run:
    return run_of(name, TINY)


@pytest.mark.parametrize("method", CONTESTANTS)
def test_that_the_same_run_gives_the_same_row(method) -> None:
    run = tiny(method)
    first = train(run)
    torch.rand(7)
    second = train(run)
    assert replace(first, seconds_per_step=0, seconds=0, megabytes=0) == replace(
        second, seconds_per_step=0, seconds=0, megabytes=0
    )
    assert first.seconds_per_step > 0
    assert first.torch_version == torch.__version__
    other = train(replace(run, seed=1))
    assert other.curves != first.curves


@pytest.mark.parametrize("method", CONTESTANTS)
def test_that_training_learns(method) -> None:
    row = train(replace(on(tiny(method), batch_size=30, label_noise=0.0), lr=0.1, epochs=3))
    assert {len(curve) for curve in row.curves.values()} == {3}
    assert row.curves["train_loss"][1] < row.curves["train_loss"][0]
    assert row.curves["loss"][1] < row.curves["loss"][0]
    assert row.scores == {name: row.curves[name][-1] for name in ("accuracy", "train_accuracy", "train_loss")}
    assert row.scores["train_accuracy"] > 0.5
    assert row.scores["accuracy"] > 0.5
    # filters stay on their manifolds within the tolerance of single precision
    assert row.violation < 0.1


def test_that_the_row_tells_what_the_network_does() -> None:
    run = on(TINY, dataset="fashion_mnist_mini", label_noise=0.5)
    row, model = train_model(run)
    data, _, _ = prepared(run)
    with torch.no_grad():
        outputs = model(data.train_images)
        right = (model(data.heldout_images).argmax(1) == data.heldout_labels).double().mean()
    loss = float(nn.functional.cross_entropy(outputs, data.train_labels))
    assert row.scores["train_loss"] == pytest.approx(loss, rel=1e-5)
    assert row.scores["train_accuracy"] == float((outputs.argmax(1) == data.train_labels).double().mean())
    assert row.scores["accuracy"] == float(right)


def test_that_all_methods_start_from_the_same_function_and_data() -> None:
    images = prepared(TINY)[0].heldout_images[:100]
    outputs, labels = [], []
    for name, contestant in CONTESTANTS.items():
        data, model, _ = prepared(tiny(name))
        labels.append(data.train_labels)
        if contestant.kernels != "stiefel":  # the nearest orthonormal filters compute other outputs
            outputs.append(model(images))  # batch norm undoes the scale of the filters
    for output in outputs:
        torch.testing.assert_close(output, outputs[0], rtol=1e-2, atol=1e-2)
    for label in labels:
        assert torch.equal(label, labels[0])


@pytest.mark.parametrize("method", ["sgd", "sam", "hessian_trace", "rsam"])
def test_that_a_run_that_diverges_ends_with_a_row(method) -> None:
    # in the second step logits overflow in single precision
    run = replace(on(tiny(method), model="small_plain_cnn"), lr=1e38, epochs=3, measures=(CURVES, "trace"))
    row = train(run)
    assert row.diverged
    assert len(row.curves["train_loss"]) == 1 and "loss" not in row.curves
    assert row.measures == {}
    assert 0 <= row.scores["accuracy"] <= 1


def test_that_without_curves_only_the_end_is_evaluated() -> None:
    run = replace(TINY, epochs=3)
    whole, end = train(run), train(replace(run, measures=()))
    assert len(whole.curves["accuracy"]) == 3
    assert end.curves.keys() == {"loss"}
    assert end.scores == whole.scores
    assert gap(whole) == whole.scores["train_accuracy"] - whole.scores["accuracy"]


def test_that_scores_after_each_fifth_are_those_of_the_curve_there() -> None:
    run = replace(TINY, epochs=10)
    whole, fifths = train(run), train(replace(run, measures=(FIFTHS,)))
    assert fifths.curves["accuracy"] == whole.curves["accuracy"][1::2]
    assert fifths.curves["loss"] == whole.curves["loss"]
    assert fifths.scores == whole.scores and fifths.measures == {}


def test_that_augmented_images_are_trained_on_but_not_measured_on(monkeypatch) -> None:
    augmented = on(TINY, augment=True)
    assert train(augmented).curves != train(TINY).curves
    monkeypatch.setattr(workload, "shift_and_mirror", lambda images, generator: images)
    assert train(augmented).curves == train(TINY).curves


def test_that_curvature_is_measured_where_it_is_asked_for() -> None:
    row = train(replace(TINY, measures=(CURVES, *MEASURES)))
    assert row.measures.keys() == {*MEASURES, "trace_error"}
    plain = train(TINY)
    assert plain.measures == {}
    assert plain.curves == row.curves


@pytest.mark.parametrize("method", ["riemannian_sgd", "rsam"])
def test_that_filters_stay_on_spheres(method) -> None:
    start = prepare(tiny(method)).model
    _, model = train_model(tiny(method))
    for before, after in zip(start.modules(), model.modules(), strict=True):
        if isinstance(after, nn.Conv2d):
            assert not torch.equal(before.weight, after.weight)
            torch.testing.assert_close(after.weight.flatten(1).norm(dim=1), torch.ones(after.out_channels))


@pytest.mark.parametrize("method", ["sgd", "sam"])
def test_that_plain_methods_have_plain_filters(method) -> None:
    _, model = train_model(tiny(method))
    norms = torch.cat([m.weight.flatten(1).norm(dim=1) for m in model.modules() if isinstance(m, nn.Conv2d)])
    assert ((norms - 1).abs() > 1e-3).all()


@pytest.mark.parametrize(("sam", "base"), [("sam", "sgd"), ("rsam", "riemannian_sgd")])
def test_that_rho_is_what_tells_sam_from_its_base(sam, base) -> None:
    expected = train(tiny(base))
    assert train(replace(tiny(sam), rho=0.0)).curves == expected.curves
    assert train(tiny(sam)).curves != expected.curves


@pytest.mark.parametrize("method", CONTESTANTS)
def test_that_weight_decay_spares_the_spheres_only(method) -> None:
    _, model, optimizer = prepared(replace(tiny(method), weight_decay=0.01))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(p): 0.0 if hasattr(p, "manifold") else 0.01 for p in model.parameters()}


@pytest.mark.parametrize("method", ["sam", "rsam"])
def test_that_batch_statistics_are_those_of_the_first_pass(method) -> None:
    data, model, optimizer = prepared(tiny(method))
    twin = prepare(replace(tiny(method), rho=0.0)).model
    images, labels = data.train_images[:64], data.train_labels[:64]
    assert isinstance(optimizer, rsam.RSAM)
    optimizer.step(gradient_closure(model, optimizer, images, labels))
    twin(images)
    for mine, reference in zip(model.buffers(), twin.buffers(), strict=True):
        assert torch.equal(mine, reference)


@pytest.mark.parametrize("method", ["sgd", "rsam"])
def test_that_the_learning_rate_falls_along_a_cosine(monkeypatch, method) -> None:
    rates = []

    def spy(model, optimizer, *rest):
        rates.append({group["lr"] for group in optimizer.param_groups})
        return gradient_closure(model, optimizer, *rest)

    monkeypatch.setattr(training, "gradient_closure", spy)
    train(tiny(method))
    assert all(len(of_step) == 1 for of_step in rates)
    cosine = [TINY.lr * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]
    assert [rate for of_step in rates for rate in of_step] == pytest.approx(cosine)


def test_that_validation_runs_train_on_fewer_examples() -> None:
    with pytest.raises(ValueError, match="batch_size 1000 exceeds the 960 training examples"):
        train(replace(on(TINY, batch_size=1000), heldout="validation"))


@pytest.mark.parametrize("method", ["riemannian_sgd", "riemannian_adam", "rsam", "rsam_angle"])
def test_that_constrained_kernels_learn_at_a_multiple_of_the_rate_all_along_the_schedule(method) -> None:
    run = replace(on(TINY, kernels="spheres"), method=method, rho=0.05, kernel_rate=3.0)
    problem = prepare(run)
    optimizer = METHODS[method].build(problem.model, run)
    kernels, seen = {id(p) for p in problem.model.parameters() if hasattr(p, "manifold")}, []

    def look(*_: object) -> None:
        rates = {
            kind: {g["lr"] for g in optimizer.param_groups for p in g["params"] if (id(p) in kernels) == kind}
            for kind in (True, False)
        }
        seen.append((*rates[True], *rates[False]))

    problem.model.register_forward_pre_hook(look)
    training.train_epoch(0, run, problem, optimizer, METHODS[method].objective(problem.model, run), Tally())
    per_step = seen[:: METHODS[method].gradients]
    # four steps along half a cosine
    expected = [run.lr * 0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    assert [plain for _, plain in per_step] == pytest.approx(expected)
    assert [kernel for kernel, _ in per_step] == pytest.approx([3 * rate for rate in expected])


def test_that_one_angle_turns_each_kernel_alike_and_leaves_plain_weights() -> None:
    run = replace(on(TINY, kernels="spheres"), method="rsam_angle", rho=0.06)
    problem = prepare(run)
    optimizer = METHODS["rsam_angle"].build(problem.model, run)
    closure = gradient_closure(problem.model, optimizer, *next(iter(problem.batches(0))))
    before = [p.detach().clone() for p in problem.model.parameters()]
    closure()
    optimizer.first_step()
    moved = 0
    for old, now in zip(before, problem.model.parameters(), strict=True):
        if not hasattr(now, "manifold"):
            assert torch.equal(old, now)
            continue
        cosines = (old.flatten(1) * now.detach().flatten(1)).sum(1).double()
        # the retraction along a tangent of length 0.06 turns by its arctangent; single precision leaves 1e-7 of cosines
        assert cosines.numpy() == pytest.approx(math.cos(math.atan(0.06)), abs=1e-6)
        moved += len(cosines)
    assert moved == 4 + 8 + 8
