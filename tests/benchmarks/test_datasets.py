"""That data sets are what they should be, or their errors say how to get them."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits as sklearn_digits

from benchmarks import data
from benchmarks.data import DatasetError, MissingDataset, load, mnist1d
from benchmarks.data.augmentation import shift, shift_and_mirror
from benchmarks.data.dataset import Dataset, normalised
from benchmarks.data.directory import data_directory

pytestmark = pytest.mark.usefixtures("directory")


def test_that_digits_are_scikit_learn_s_and_split_in_order() -> None:
    digits = load("digits")
    pixels, labels = sklearn_digits(return_X_y=True)
    assert torch.equal(torch.cat([digits.train_labels, digits.heldout_labels]), torch.from_numpy(labels))
    assert digits.shape == (1, 8, 8) and digits.classes == 10 and len(digits.train_labels) == 1200
    images = torch.cat([digits.train_images, digits.heldout_images]).flatten(1).double()
    train = pixels[:1200]
    # torch's deviation divides by n - 1, and there are 76800 pixels
    np.testing.assert_allclose(images, (pixels - train.mean()) / train.std(ddof=1), rtol=1e-4, atol=1e-5)


def test_that_mnist1d_is_its_package_s_and_leaves_the_random_state() -> None:
    import mnist1d.data

    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    first = data.DATASETS["mnist1d"]()
    drawn = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert drawn == (random.random(), np.random.rand())  # noqa: NPY002
    arrays = mnist1d.data.make_dataset()
    assert first.shape == (1, 40) and len(first.train_labels) == 4000
    np.testing.assert_array_equal(first.heldout_images[:, 0], arrays["x_test"].astype(np.float32))
    np.testing.assert_array_equal(first.heldout_labels, arrays["y_test"])
    np.testing.assert_array_equal(first.train_images[:, 0], arrays["x"].astype(np.float32))
    np.testing.assert_array_equal(first.train_labels, arrays["y"])
    assert first.train_images.shape == (4000, 1, 40) and first.heldout_images.shape == (1000, 1, 40)


def test_that_a_failing_generator_leaves_the_random_state_too(monkeypatch) -> None:
    import mnist1d.data

    def fail(settings: object) -> None:
        random.seed(42)
        np.random.seed(42)  # noqa: NPY002
        raise ArithmeticError

    monkeypatch.setattr(mnist1d.data, "make_dataset", fail)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = random.random(), np.random.rand()  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    with pytest.raises(ArithmeticError):
        load("mnist1d")
    assert (random.random(), np.random.rand()) == expected  # noqa: NPY002


def test_that_a_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mnist1d", None)
    monkeypatch.setitem(sys.modules, "mnist1d.data", None)
    with pytest.raises(MissingDataset, match="pip install mnist1d"):
        load("mnist1d")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_that_a_missing_set_says_how_to_get_it(name, directory) -> None:
    with pytest.raises(MissingDataset, match=r"--data-dir.*--download") as caught:
        load(name)
    assert str(directory) in str(caught.value)


def test_that_the_data_directory_is_data_by_default(monkeypatch, directory) -> None:
    assert data_directory() == directory
    monkeypatch.delenv("RSAM_DATA")
    assert data_directory() == Path("data")


def test_that_a_data_set_is_read_once(monkeypatch) -> None:
    made = []
    for name in "abc":
        monkeypatch.setitem(data.DATASETS, name, lambda name=name: made.append(name) or object())
    first, second = load("a"), load("b")
    assert load("a") is first and load("b") is second
    assert made == ["a", "b"]
    load("c")
    assert load("b") is second and made == ["a", "b", "c"]
    load("a")  # only two stay in memory
    assert made == ["a", "b", "c", "a"]


def test_that_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(DatasetError, match=r"no data set 'mnist'; data sets: .*mnist1d.*imagefolder:NAME"):
        load("mnist")


def test_that_channels_are_scaled_by_the_training_images_only() -> None:
    train = torch.stack([torch.zeros(2, 2, 2), torch.stack([torch.full((2, 2), 2.0), torch.full((2, 2), 20.0)])])
    actual = normalised(train, torch.tensor([0, 1]), train[1:] * 3, torch.tensor([2]))
    deviation = (8 / 7) ** 0.5  # deviation of four zeros and four twos
    torch.testing.assert_close(actual.heldout_images, torch.full((1, 2, 2, 2), 0.0) + torch.tensor(
        [(6 - 1) / deviation, (60 - 10) / (10 * deviation)]).reshape(1, 2, 1, 1))  # fmt: skip
    assert actual.classes == 3


def test_that_a_channel_without_contrast_stays_finite() -> None:
    images = torch.rand(4, 2, 3, 3)
    images[:, 1] = 7.0
    actual = normalised(images, torch.arange(4), images, torch.arange(4))
    assert actual.train_images.isfinite().all() and actual.heldout_images.isfinite().all()


def test_that_classes_that_only_the_held_out_part_has_count() -> None:
    images = torch.zeros(3, 1, 1, 1)
    assert Dataset(images, torch.tensor([0, 1, 1]), images, torch.tensor([0, 6, 2])).classes == 7
    assert Dataset(images, torch.tensor([0, 6, 2]), images, torch.tensor([0, 1, 1])).classes == 7


def test_that_a_subset_is_the_same_each_time_and_as_large_as_asked_for() -> None:
    images = torch.arange(20.0).reshape(20, 1, 1, 1)
    whole = Dataset(images, torch.arange(20), images[:3], torch.arange(3))
    part = whole.subset(8)
    assert torch.equal(part.train_images, whole.subset(8).train_images)
    assert len(set(part.train_labels.tolist())) == 8 and part.train_labels.tolist() != list(range(8))
    assert torch.equal(part.train_images.flatten(), part.train_labels.float())
    # all three held-out examples, perhaps in another order; then two of them
    assert part.heldout_labels.sort().values.tolist() == [0, 1, 2]
    few = whole.subset(2)
    assert len(few.heldout_labels) == 2
    assert torch.equal(few.heldout_images.flatten(), few.heldout_labels.float())
    assert whole.subset(0) is whole


def test_that_images_are_shifted_and_mirrored() -> None:
    one = torch.arange(1.0, 129.0).reshape(1, 2, 8, 8)
    padded = torch.nn.functional.pad(one, (1, 1, 1, 1))
    shifted = [padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    allowed = [s for base in shifted for s in (base, base.flip(3))]
    actual = shift_and_mirror(one.expand(400, 2, 8, 8), np.random.default_rng(0))
    chosen = [next(k for k, a in enumerate(allowed) if torch.equal(image[None], a)) for image in actual]
    assert set(chosen) == set(range(18))  # the chance that one of them is missing is 18 (17/18)^400 < 1e-8
    assert 150 < sum(k % 2 for k in chosen) < 250  # five deviations
    assert torch.equal(actual, shift_and_mirror(one.expand(400, 2, 8, 8), np.random.default_rng(0)))


def test_that_the_reach_is_an_eighth_of_the_width() -> None:
    one = torch.arange(1.0, 1 + 3 * 16).reshape(1, 1, 3, 16)
    kept = one.clone()
    padded = torch.nn.functional.pad(one, (2, 2, 2, 2))
    shifted = [padded[:, :, i : i + 3, j : j + 16] for i in range(5) for j in range(5)]
    actual = shift_and_mirror(one.expand(1000, 1, 3, 16), np.random.default_rng(1))
    counts = [int((actual == image).flatten(1).all(1).sum()) for base in shifted for image in (base, base.flip(3))]
    assert sum(counts) == 1000
    # each of the 50 comes about 20 times, with a deviation of 4.4
    assert all(0 < count < 45 for count in counts)
    assert torch.equal(one, kept)
    other = shift_and_mirror(one.expand(1000, 1, 3, 16), np.random.default_rng(2))
    assert not torch.equal(actual, other)


def test_that_narrow_images_are_mirrored_only() -> None:
    images = torch.rand(50, 2, 7, 7)
    found = shift_and_mirror(images, np.random.default_rng(0))
    mirrored = (found == images.flip(3)).flatten(1).all(1)
    assert torch.equal(found[~mirrored], images[~mirrored])
    assert 5 < mirrored.sum() < 45  # half of 50, less or more five deviations


def test_that_signals_are_shifted_with_zeros_by_at_most_an_eighth() -> None:
    signal = torch.stack([torch.arange(1.0, 17), -torch.arange(1.0, 17)])
    found = shift(signal.expand(200, 2, 16), np.random.default_rng(0))
    by = {int(8 - one[0, 7]) for one in found}
    assert by == {-2, -1, 0, 1, 2}
    for one in found:
        moved = int(8 - one[0, 7])
        expected = torch.zeros(2, 16)
        expected[:, max(moved, 0) : 16 + min(moved, 0)] = signal[:, max(-moved, 0) : 16 - max(moved, 0)]
        assert torch.equal(one, expected)
    assert torch.equal(found, shift(signal.expand(200, 2, 16), np.random.default_rng(0)))


def test_that_the_larger_set_of_signals_looks_like_the_smaller_one(monkeypatch) -> None:
    generate = mnist1d._generate
    # to generate all of them would take seconds
    monkeypatch.setattr(mnist1d, "_generate", lambda count, training: generate(count // 5, training))
    small, large = (data.DATASETS[name]() for name in ("mnist1d", "mnist1d_large"))
    assert large.train_images.shape == (15000 // 5, 1, 40)
    assert large.heldout_images.shape == (10000 // 5, 1, 40)
    signals = torch.cat([large.train_images, large.heldout_images]).flatten(1).tolist()
    assert len({tuple(signal) for signal in signals}) == 25000 // 5
    assert torch.bincount(large.train_labels).min() > 1300 // 5
    torch.testing.assert_close(large.train_images.std(), small.train_images.std(), rtol=0.02, atol=0)


def test_that_signals_of_another_seed_are_others_and_the_same_each_time() -> None:
    first, again, other = (mnist1d._generate(100, 0.8, seed) for seed in (1, 1, None))
    assert torch.equal(first.train_images, again.train_images)
    known = {signal.numpy().tobytes() for signal in (*other.train_images, *other.heldout_images)}
    assert not any(signal.numpy().tobytes() in known for signal in (*first.train_images, *first.heldout_images))
