"""That orthogonal recurrent networks compute the formulas, and their problems are those of the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.data import load
from benchmarks.workloads.manifolds import MANIFOLDS, violation, worst_violation
from benchmarks.workloads.problem import Heldout, Problem
from benchmarks.workloads.recurrent import Sequences, sequences
from benchmarks.workloads.recurrent.cell import OrthogonalRNN
from benchmarks.workloads.recurrent.sequences import add, copy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prepared(task: str, seed: int = 0, heldout: Heldout = "test") -> Problem:
    return Sequences(task, "stiefel", 8).prepare(seed, heldout)


@pytest.mark.parametrize("manifold", ["stiefel", "canonical"])
@pytest.mark.parametrize("last", [1, 3])
def test_that_the_network_is_its_recurrence(manifold, last) -> None:
    torch.manual_seed(0)
    model = OrthogonalRNN(2, 6, 3, MANIFOLDS[manifold](), last).double()
    with torch.no_grad():
        model.bias.uniform_(-0.2, 0.2)
    x = torch.randn(4, 5, 2, dtype=torch.float64)
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
    states = [np.zeros((4, 6))]
    for step in range(5):
        state = states[-1] @ weights["recurrent"].T + x[:, step].numpy() @ weights["input.weight"].T
        states.append(np.sign(state) * np.maximum(np.abs(state) + weights["bias"], 0))
    expected = [state @ weights["output.weight"].T + weights["output.bias"] for state in states[-last:]]
    actual = model(x).detach().numpy()
    assert actual.shape == ((4, 3) if last == 1 else (4, 3, last))
    np.testing.assert_allclose(actual, expected[0] if last == 1 else np.stack(expected, 2), rtol=1e-12, atol=1e-12)


def test_that_the_recurrent_matrix_is_orthogonal_at_first_and_keeps_what_it_is_given() -> None:
    torch.manual_seed(0)
    model = OrthogonalRNN(2, 8, 3, MANIFOLDS["stiefel"]()).double()
    # made in single precision
    assert violation(model.recurrent, model.recurrent.manifold) < 1e-6
    x = torch.zeros(1, 40, 2, dtype=torch.float64)
    x[0, 0] = 1.0
    states = []
    model.output.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    model(x)
    model(x[:, :1])
    # forty products of matrices that are orthogonal to single precision
    one, other = (state.detach().norm().item() for state in states)
    assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("width", [3, 7])
def test_that_odd_widths_are_orthogonal_too(width) -> None:
    model = OrthogonalRNN(2, width, 3, MANIFOLDS["stiefel"]())
    assert model.recurrent.shape == (width, width)
    assert worst_violation(model) < 0.01


def test_that_the_copying_problem_asks_for_the_first_ten_symbols_after_the_signal() -> None:
    inputs, targets = copy(5, 7, generator())
    assert inputs.shape == (5, 27, 10)
    assert torch.equal(inputs.sum(2), torch.ones(5, 27))
    symbols = inputs.argmax(2)
    assert torch.equal(symbols[:, :10], targets)
    assert int(targets.max()) < 8
    blanks = torch.cat([symbols[:, 10:17], symbols[:, 18:]], 1)
    assert torch.equal(blanks, torch.full_like(blanks, 8))
    assert torch.equal(symbols[:, 17], torch.full((5,), 9))


def test_that_the_adding_problem_marks_a_number_in_each_half() -> None:
    inputs, targets = add(50, 9, generator())
    numbers, marks = inputs.unbind(2)
    assert torch.equal(marks[:, :4].sum(1), torch.ones(50))
    assert torch.equal(marks[:, 4:].sum(1), torch.ones(50))
    # in single precision
    torch.testing.assert_close(
        targets[:, 0], torch.stack([n[m > 0].sum() for n, m in zip(numbers, marks, strict=True)])
    )
    assert float(numbers.min()) >= 0 and float(numbers.max()) < 1


@pytest.mark.parametrize("task", ["copying", "adding", "rows"])
def test_that_scores_are_those_of_sequences_that_were_not_trained_on(monkeypatch, task) -> None:
    """Test data do not depend on the split; validation data differ from them; each seed has its own data."""
    scored: dict[tuple[str, int], torch.Tensor] = {}
    for heldout in ("test", "validation"):
        for seed in (0, 1):
            problem = prepared(task, seed, heldout)  # type: ignore[arg-type]
            seen: list[torch.Tensor] = []
            problem.model.register_forward_hook(lambda _, inputs, out, seen=seen: seen.append(inputs[0]))
            problem.scores()
            scored[heldout, seed] = seen[0]
            trained = torch.cat([x for x, _ in problem.batches(0)])
            known = {row.numpy().tobytes() for row in trained}
            assert not any(row.numpy().tobytes() in known for row in seen[0])
    assert not torch.equal(scored["test", 0], scored["validation", 0])
    if task == "rows":
        assert torch.equal(scored["test", 0], scored["test", 1])
        assert torch.equal(scored["test", 0], load("fashion_mnist_mini").heldout_images[:500, 0])
    else:
        assert not torch.equal(scored["test", 0], scored["test", 1])


def test_that_accuracy_is_counted_on_short_and_on_long_sequences() -> None:
    problem = prepared("copying")
    lengths: list[int] = []
    problem.model.register_forward_hook(lambda _, inputs, out: lengths.append(inputs[0].shape[1]))
    scores = problem.scores()
    assert set(lengths) == {50, 53, 80}
    assert set(scores) == {"accuracy", "longer_accuracy", "long_accuracy", "train_accuracy"}
    # ten thousand guesses of one in eight symbols, within five standard errors of 0.0033 from chance
    assert scores["accuracy"] == pytest.approx(1 / 8, abs=0.02)


def test_that_the_error_of_the_adding_problem_is_the_logarithm_of_the_mean_square() -> None:
    problem = prepared("adding")
    with torch.no_grad():
        problem.model.output.weight.zero_()  # type: ignore[union-attr]
        problem.model.output.bias.fill_(1.0)  # type: ignore[union-attr]
    # the sum of two uniform numbers has mean 1 and variance 1/6; the variance of 1000 has a standard error of 0.006
    for name in ("log_error", "longer_log_error", "long_log_error"):
        assert 10 ** problem.scores()[name] == pytest.approx(1 / 6, abs=0.03)


@pytest.mark.parametrize("task", ["copying", "adding", "rows"])
def test_that_an_epoch_goes_through_all_training_data_once_in_the_same_order_for_all(task) -> None:
    first, again = (prepared(task) for _ in range(2))
    one, other = list(first.batches(3)), list(again.batches(3))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True))
    assert sum(len(x) for x, _ in one) == sequences.TRAIN
    assert not torch.equal(one[0][0], next(iter(first.batches(4)))[0])
