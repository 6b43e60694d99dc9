"""The copying and the adding problem (Hochreiter and Schmidhuber 1997), and images row by row.

The first two are learnt from a fixed set of sequences, not from an endless stream, so that there is something to
generalise from; they are scored on new sequences of the same length, and on longer ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks.data import hold_out_validation, load
from benchmarks.machine import device
from benchmarks.tasks.trial import Trial
from benchmarks.workloads.manifolds import MANIFOLDS
from benchmarks.workloads.problem import Batch, Problem, shuffled
from benchmarks.workloads.recurrent.cell import OrthogonalRNN
from benchmarks.workloads.scoring import accuracy, cosine

__all__ = ["add", "adding", "copy", "copying", "rows"]

TRAIN, HELDOUT, BATCH, MEASURED = 2000, 1000, 100, 200
#: The copying problem: symbols, how many are to be remembered, and for how long.
SYMBOLS, REMEMBERED, DELAY = 8, 10, 30
#: Steps of the adding problem.
STEPS = 20


def copy(count: int, delay: int, generator: torch.Generator) -> Batch:
    """Sequences of the copying problem.

    Returns
    -------
    tuple of Tensor
        One-hot inputs ``(count, delay + 20, 10)``: symbols, blanks, a signal, blanks; and the symbols ``(count, 10)``.
    """
    symbols = torch.randint(SYMBOLS, (count, REMEMBERED), generator=generator)
    sequence = torch.full((count, delay + 2 * REMEMBERED), SYMBOLS)
    sequence[:, :REMEMBERED] = symbols
    sequence[:, -REMEMBERED] = SYMBOLS + 1
    return nn.functional.one_hot(sequence, SYMBOLS + 2).float().to(device()), symbols.to(device())


def add(count: int, steps: int, generator: torch.Generator) -> Batch:
    """Sequences of the adding problem.

    Returns
    -------
    tuple of Tensor
        Inputs ``(count, steps, 2)``: numbers in [0, 1), and marks on one number in each half; and the sums of the
        marked ones ``(count, 1)``.
    """
    numbers = torch.rand(count, steps, generator=generator)
    marks = torch.zeros(count, steps)
    half = steps // 2
    first = torch.randint(half, (count, 1), generator=generator)
    second = torch.randint(half, steps, (count, 1), generator=generator)
    marks.scatter_(1, torch.cat([first, second], 1), 1.0)
    return torch.stack([numbers, marks], 2).to(device()), (numbers * marks).sum(1, keepdim=True).to(device())


def copying(trial: Trial) -> Problem:
    """Remember ten symbols over 30 steps; scored over 30, 33 and 60."""
    made = _generator(trial, 0)
    train = copy(TRAIN, DELAY, made)
    made = _generator(trial, 1)
    lengths = {"": DELAY, "longer_": DELAY + DELAY // 10, "long_": 2 * DELAY}
    sets = {prefix: copy(HELDOUT, delay, made) for prefix, delay in lengths.items()}
    model = OrthogonalRNN(SYMBOLS + 2, trial.size, SYMBOLS, MANIFOLDS[trial.manifold](), last=REMEMBERED).to(device())
    return _problem(trial, model, nn.CrossEntropyLoss(), train, lambda: accuracy(model, {**sets, "train_": train}))


def adding(trial: Trial) -> Problem:
    """Add two of 20 numbers; scored over 20, 22 and 40 by the logarithm (base 10) of the mean squared error."""
    made = _generator(trial, 0)
    train = add(TRAIN, STEPS, made)
    made = _generator(trial, 1)
    lengths = {"": STEPS, "longer_": STEPS + STEPS // 10, "long_": 2 * STEPS}
    sets = {prefix: add(HELDOUT, steps, made) for prefix, steps in lengths.items()}
    sets["train_"] = train
    model = OrthogonalRNN(2, trial.size, 1, MANIFOLDS[trial.manifold]()).to(device())

    @torch.no_grad()
    def scores() -> dict[str, float]:
        return {f"{prefix}log_error": float((model(x) - y).square().mean().log10()) for prefix, (x, y) in sets.items()}

    return _problem(trial, model, nn.MSELoss(), train, scores)


def rows(trial: Trial) -> Problem:
    """Fashion-MNIST mini, a row of an image a step."""
    data = load("fashion_mnist_mini")
    if trial.heldout == "validation":
        data = hold_out_validation(data, 0.2, trial.seed)
    train = data.train_images[:, 0].to(device()), data.train_labels.to(device())
    sets = {"": (data.heldout_images[:, 0].to(device()), data.heldout_labels.to(device())), "train_": train}
    model = OrthogonalRNN(28, trial.size, data.classes, MANIFOLDS[trial.manifold]()).to(device())
    return _problem(trial, model, nn.CrossEntropyLoss(), train, lambda: accuracy(model, sets))


def _generator(trial: Trial, part: int) -> torch.Generator:
    """Of the sequences to train on (part 0) and to score: others for validation than for the test."""
    return torch.Generator().manual_seed(4 * trial.seed + part + 2 * (part == 1 and trial.heldout == "validation"))


def _problem(trial: Trial, model: nn.Module, loss: nn.Module, train: Batch, scores: object) -> Problem:
    inputs, targets = train

    batches = shuffled(inputs, targets, BATCH, trial.seed)
    measured: tuple[Tensor, Tensor] = inputs[:MEASURED], targets[:MEASURED]
    return Problem(model, loss, batches, math.ceil(len(inputs) / BATCH), scores, measured, cosine)  # type: ignore[arg-type]
