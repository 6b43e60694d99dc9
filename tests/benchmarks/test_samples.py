"""That each seed draws its own training examples, and never one that it is validated or tested on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.data import Dataset, load
from benchmarks.machine import device
from benchmarks.workloads import samples
from benchmarks.workloads.networks import MODELS
from benchmarks.workloads.samples import VALIDATION, Samples, split

DIGITS = Samples("digits", examples=200)


def indices(inputs: Tensor, known: Tensor) -> list[int]:
    """Find inputs in a data set, by their numbers."""
    numbers = {one.numpy().tobytes(): i for i, one in enumerate(known)}
    return [numbers[one.numpy().tobytes()] for one in inputs.cpu()]


def drawn(workload: Samples, seed: int, heldout: str) -> list[int]:
    """Find the training examples that the batches of an epoch have."""
    batches = workload.prepare(seed, heldout).batches(0)  # type: ignore[arg-type]
    return indices(torch.cat([inputs for inputs, _ in batches]), load(workload.dataset).train_images)


@pytest.mark.parametrize("heldout", ["validation", "test"])
def test_that_no_validation_or_test_example_is_ever_trained_on(heldout) -> None:
    data, parts = load("digits"), split("digits")
    validation = set(indices(parts.validation[0], data.train_images))
    trained = {i for seed in range(20) for i in drawn(DIGITS, seed, heldout)}
    assert len(validation) == len(data.train_labels) // 4 == 300
    assert not trained & validation
    assert len(trained) > 850  # 20 draws of 200 out of 900 leave out a hundredth of them
    known = {one.numpy().tobytes() for one in data.train_images}
    assert not any(one.numpy().tobytes() in known for one in parts.test[0])
    assert torch.equal(parts.validation[1], data.train_labels[indices(parts.validation[0], data.train_images)])


def test_that_seeds_draw_different_examples_and_the_same_ones_while_tuning() -> None:
    first, second = (set(drawn(DIGITS, seed, "test")) for seed in (0, 1))
    assert len(first) == len(second) == 192  # three whole batches of 64
    # two draws of 200 out of 900 share 44 on average, and 192 of each were seen
    assert len(first & second) < 80
    whole = [
        indices(DIGITS.data(0, heldout).train_images, load("digits").train_images) for heldout in ("test", "validation")
    ]  # type: ignore[arg-type]
    assert whole[0] == whole[1] and len(set(whole[0])) == 200


def test_that_wrong_labels_are_trained_on_and_not_measured_on() -> None:
    data = load("digits")
    noisy, right = Samples("digits", 200, label_noise=0.2).data(3), DIGITS.data(3)
    assert int((noisy.train_labels != right.train_labels).sum()) == 40
    assert torch.equal(noisy.train_images, right.train_images)
    assert torch.equal(noisy.heldout_labels, data.heldout_labels)
    assert torch.equal(right.train_labels, data.train_labels[indices(right.train_images, data.train_images)])


@pytest.mark.parametrize("heldout", ["validation", "test"])
def test_that_networks_are_scored_on_what_is_held_out_and_tested_ones_on_validation_too(heldout) -> None:
    parts = split("digits")
    problem = DIGITS.prepare(0, heldout)
    problem.model.eval()
    scores = problem.scores()

    def right(inputs: Tensor, labels: Tensor) -> float:
        with torch.no_grad():
            return float((problem.model(inputs.to(device())).argmax(1).cpu() == labels).double().mean())

    asked = parts.test if heldout == "test" else parts.validation
    assert scores["accuracy"] == pytest.approx(right(*asked))
    assert scores.get("validation_accuracy", scores["accuracy"]) == pytest.approx(right(*parts.validation))
    assert ("validation_accuracy" in scores) == (heldout == "test")
    assert scores["train_accuracy"] == pytest.approx(right(DIGITS.data(0).train_images, DIGITS.data(0).train_labels))


def test_that_the_network_is_the_small_one_by_default_and_otherwise_what_is_asked_for() -> None:
    model = Samples("fashion_mnist_mini", 100).prepare(4, "validation").model
    torch.manual_seed(4)
    small = MODELS["small_cnn"]((1, 28, 28), 10)
    for ours, theirs in zip(model.parameters(), small.parameters(), strict=True):
        assert torch.equal(ours.cpu(), theirs)
    changed = Samples("digits", 100, kernels="spheres", width=0.5, depth=5, dropout=0.3, label_smoothing=0.1)
    problem = changed.prepare(0, "validation")
    kernels = [m.weight for m in problem.model.modules() if isinstance(m, nn.Conv2d)]
    assert [len(k) for k in kernels] == [8, 16, 16, 16, 16]
    assert all(hasattr(k, "manifold") for k in kernels)
    assert [m.p for m in problem.model.modules() if isinstance(m, nn.Dropout)] == [0.3]
    # a tenth of the target is spread over ten classes
    outputs = torch.tensor([[2.0] + [0.0] * 9])
    logs = outputs.log_softmax(1)[0]
    expected = -(0.91 * logs[0] + 0.01 * logs[1:].sum())
    assert float(problem.loss(outputs, torch.tensor([0]))) == pytest.approx(float(expected))


def test_that_too_many_examples_and_too_large_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="at most the 900 of digits, got 901"):
        Samples("digits", 901).data(0)
    with pytest.raises(ValueError, match="batch_size 64 exceeds the 60"):
        Samples("digits", 60).prepare(0, "test")


def test_that_test_images_that_were_looked_at_before_are_left_out(monkeypatch) -> None:
    """The two sets are normalised differently, as those of the two loaders are."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (60, 1, 4, 4))).float()
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = 0, 255
    labels = torch.arange(60) % 10
    whole = Dataset((pixels[:40] - 70) / 90, labels[:40], (pixels[40:] - 70) / 90, labels[40:])
    mini = Dataset((pixels[:4] - 75) / 80, labels[:4], (pixels[[43, 51]] - 75) / 80, labels[[43, 51]])
    monkeypatch.setattr(samples, "load", {"fashion_mnist": whole, "fashion_mnist_mini": mini}.__getitem__)
    split.cache_clear()
    parts = split("fashion_mnist")
    split.cache_clear()
    left = [i for i in range(20) if i not in (3, 11)]
    assert torch.equal(parts.test[0], whole.heldout_images[left])
    assert torch.equal(parts.test[1], whole.heldout_labels[left])
    assert (len(parts.pool[1]), len(parts.validation[1])) == (30, 10)


def test_that_large_sets_give_five_thousand_for_validation(monkeypatch) -> None:
    images = torch.zeros(20_000, 1, 1, 1)
    data = Dataset(images, torch.zeros(20_000), images[:5_000], torch.zeros(5_000))
    monkeypatch.setattr(samples, "load", lambda name: data)
    split.cache_clear()
    parts = split("large")
    split.cache_clear()
    assert VALIDATION == 5_000
    assert [len(labels) for _, labels in (parts.pool, parts.validation, parts.test)] == [15_000, 5_000, 5_000]
