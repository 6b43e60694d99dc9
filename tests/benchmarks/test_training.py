"""That a run is determined by its configuration, and each method is what its name says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import rsam
from benchmarks.methods import METHODS
from benchmarks.runs import training
from benchmarks.runs.configuration import Run
from benchmarks.runs.measurement import MEASURES
from benchmarks.runs.steps import gradient_closure
from benchmarks.runs.training import evaluate, prepare, train, train_model

# four steps
TINY = Run("sgd", seed=0, lr=0.05, epochs=1, batch_size=500)


def tiny(method: str) -> Run:
    knobs = {"rho": 0.1, "penalty": 1e-3, "weight_decay": TINY.weight_decay}
    knob = METHODS[method].knob
    return replace(TINY, method=method, **{knob: knobs[knob]})


@pytest.mark.parametrize("method", METHODS)
def test_that_the_same_run_gives_the_same_row(method) -> None:
    first = train(tiny(method))
    torch.rand(7)
    second = train(tiny(method))
    assert replace(first, seconds_per_step=0, seconds=0) == replace(second, seconds_per_step=0, seconds=0)
    assert first.seconds_per_step > 0
    assert first.torch_version == torch.__version__
    other = train(replace(tiny(method), seed=1))
    assert other.train_loss != first.train_loss


@pytest.mark.parametrize("method", METHODS)
def test_that_training_learns(method) -> None:
    row = train(replace(tiny(method), epochs=2, batch_size=100, label_noise=0.0))
    assert row.epochs == len(row.train_loss) == len(row.train_accuracy) == len(row.heldout_accuracy) == 2
    assert row.train_loss[1] < row.train_loss[0]
    assert row.final_train_accuracy == row.train_accuracy[-1] > 0.5
    assert row.final_heldout_accuracy == row.heldout_accuracy[-1] > 0.5


def test_that_the_row_tells_what_the_network_does() -> None:
    run = replace(TINY, label_noise=0.5)
    row, model = train_model(run)
    data, _, _ = prepare(run)
    loss, accuracy = evaluate(model, data.train_images, data.train_labels, batch_size=2000)
    assert row.train_loss[-1] == pytest.approx(loss, rel=1e-5)
    assert row.final_train_accuracy == accuracy
    right = (model(data.heldout_images).argmax(1) == data.heldout_labels).double().mean()
    assert row.final_heldout_accuracy == float(right)


def test_that_all_methods_start_from_the_same_function_and_data() -> None:
    images = prepare(TINY)[0].heldout_images[:100]
    outputs, labels = [], []
    for name, method in METHODS.items():
        data, model, _ = prepare(tiny(name))
        labels.append(data.train_labels)
        if method.manifold != "stiefel":  # the nearest orthonormal filters are others
            outputs.append(model(images))  # batch norm undoes the scale of the filters
    for output in outputs:
        torch.testing.assert_close(output, outputs[0], rtol=1e-2, atol=1e-2)
    for label in labels:
        assert torch.equal(label, labels[0])


@pytest.mark.parametrize("method", ["sgd", "sam", "hessian_trace", "rsam"])
def test_that_a_run_that_diverges_ends_with_a_row(method) -> None:
    # by the second step logits are beyond single precision
    run = replace(tiny(method), lr=1e38, epochs=3, model="small_plain_cnn", curvature=True)
    row = train(run)
    assert row.diverged
    assert (row.epochs, len(row.train_loss)) == (1, 1)
    assert 0 <= row.final_heldout_accuracy <= 1


def test_that_other_errors_are_not_taken_for_divergence(monkeypatch) -> None:
    def broken(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(training, "cross_entropy", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(TINY)


def test_that_without_curves_only_the_end_is_evaluated() -> None:
    run = replace(TINY, epochs=3)
    whole, end = train(run), train(replace(run, curves=False))
    assert len(whole.heldout_accuracy) == 3
    assert end.heldout_accuracy == whole.heldout_accuracy[-1:]
    assert end.final_train_loss == whole.final_train_loss == whole.train_loss[-1]
    assert whole.gap == whole.final_train_accuracy - whole.final_heldout_accuracy


def test_that_augmented_images_are_trained_on_but_not_measured_on(monkeypatch) -> None:
    row = train(replace(TINY, augment=True))
    assert row.train_loss != train(TINY).train_loss
    monkeypatch.setattr(training, "shift_and_mirror", lambda images, generator: images)
    assert train(replace(TINY, augment=True)).train_loss == train(TINY).train_loss


def test_that_curvature_is_measured_where_it_is_asked_for() -> None:
    row = train(replace(TINY, model="tiny_cnn", curvature=True))
    assert row.curvature.keys() == {*MEASURES, "trace_error"}
    plain = train(replace(TINY, model="tiny_cnn"))
    assert plain.curvature == {}
    assert plain.train_loss == row.train_loss


@pytest.mark.parametrize("method", ["riemannian_sgd", "rsam"])
def test_that_filters_stay_on_spheres(method) -> None:
    start = prepare(tiny(method))[1]
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
    assert train(replace(tiny(sam), rho=0.0)).train_loss == expected.train_loss
    assert train(tiny(sam)).train_loss != expected.train_loss


@pytest.mark.parametrize("method", METHODS)
def test_that_weight_decay_spares_the_spheres_only(method) -> None:
    _, model, optimizer = prepare(replace(tiny(method), weight_decay=0.01))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(p): 0.0 if hasattr(p, "manifold") else 0.01 for p in model.parameters()}


@pytest.mark.parametrize("method", ["sam", "rsam"])
def test_that_batch_statistics_are_those_of_the_first_pass(method) -> None:
    data, model, optimizer = prepare(tiny(method))
    twin = prepare(replace(tiny(method), rho=0.0))[1]
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
    assert all(len(found) == 1 for found in rates)
    cosine = [TINY.lr * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]
    assert [rate for found in rates for rate in found] == pytest.approx(cosine)


def test_that_validation_runs_train_on_fewer_examples() -> None:
    with pytest.raises(ValueError, match="batch_size 2000 exceeds the 1600 training examples"):
        train(replace(TINY, heldout="validation", batch_size=2000))
