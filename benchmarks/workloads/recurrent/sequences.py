"""Train on the copying and the adding problem (Hochreiter and Schmidhuber 1997), and on images row by row.

The first two are learnt from a fixed set of sequences, not from an endless stream, so that networks can differ in
how they generalise; they are scored on new sequences of the same length, and on longer ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.data import hold_out_validation, load
from benchmarks.machine import device
from benchmarks.workloads.manifolds import MANIFOLDS
from benchmarks.workloads.problem import Batch, Heldout, Problem, shuffled
from benchmarks.workloads.recurrent.cell import OrthogonalRNN
from benchmarks.workloads.scoring import accuracies

__all__ = ["Sequences", "add", "copy"]

TRAIN, HELDOUT, BATCH, MEASURED = 2000, 1000, 100, 200
#: Copying problem: number of different symbols, length of the sequence to remember, and delay.
SYMBOLS, REMEMBERED, DELAY = 8, 10, 30
#: Number of steps of the adding problem.
STEPS = 20


def copy(count: int, delay: int, generator: torch.Generator) -> Batch:
    """Make sequences of the copying problem.

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
    """Make sequences of the adding problem.

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


@dataclass(frozen=True)
class Sequences:
    """Workload of an orthogonal recurrent network on a problem with sequences.

    Attributes
    ----------
    problem : {"copying", "adding", "rows"}
        Remember ten symbols over 30 steps, add two of 20 numbers, or classify Fashion-MNIST mini by reading one row of
        an image per step. Copying is scored at delays of 30, 33 and 60 steps; adding at 20, 22 and 40 numbers, by the
        logarithm (base 10) of the mean squared error.
    metric : {"stiefel", "canonical"}
        Metric of the manifold of orthogonal matrices.
    width : int
        Number of hidden units.
    """

    problem: str
    metric: str
    width: int

    def load(self) -> object:
        """Load the images; sequences need no file."""
        return load("fashion_mnist_mini") if self.problem == "rows" else None

    def prepare(self, seed: int, heldout: Heldout) -> Problem:
        """Prepare network, sequences and scores of a seed."""
        make = {"copying": _copying, "adding": _adding, "rows": _rows}[self.problem]
        (inputs, outputs, last), train, sets = make(seed, heldout)
        torch.manual_seed(seed)
        model = OrthogonalRNN(inputs, self.width, outputs, MANIFOLDS[self.metric](), last).to(device())
        sets = {**sets, "train_": train}

        @torch.no_grad()
        def errors() -> dict[str, float]:
            return {f"{p}log_error": float((model(x) - y).square().mean().log10()) for p, (x, y) in sets.items()}

        adds = self.problem == "adding"
        return Problem(
            model,
            nn.MSELoss() if adds else nn.CrossEntropyLoss(),
            shuffled(*train, BATCH, seed),
            math.ceil(len(train[0]) / BATCH),
            errors if adds else lambda: accuracies(model, sets),
            (train[0][:MEASURED], train[1][:MEASURED]),
        )


#: Parts of a problem: sizes of a step's input and output, and number of outputs; training data; data to score on, by
#: prefix of the score.
_Parts = tuple[tuple[int, int, int], Batch, dict[str, Batch]]


def _copying(seed: int, heldout: Heldout) -> _Parts:
    train = copy(TRAIN, DELAY, _generator(seed, 0, heldout))
    scoring = _generator(seed, 1, heldout)
    lengths = {"": DELAY, "longer_": DELAY + DELAY // 10, "long_": 2 * DELAY}
    sets = {prefix: copy(HELDOUT, delay, scoring) for prefix, delay in lengths.items()}
    return (SYMBOLS + 2, SYMBOLS, REMEMBERED), train, sets


def _adding(seed: int, heldout: Heldout) -> _Parts:
    train = add(TRAIN, STEPS, _generator(seed, 0, heldout))
    scoring = _generator(seed, 1, heldout)
    lengths = {"": STEPS, "longer_": STEPS + STEPS // 10, "long_": 2 * STEPS}
    return (2, 1, 1), train, {prefix: add(HELDOUT, steps, scoring) for prefix, steps in lengths.items()}


def _rows(seed: int, heldout: Heldout) -> _Parts:
    data = load("fashion_mnist_mini")
    if heldout == "validation":
        data = hold_out_validation(data, 0.2, seed)
    train = data.train_images[:, 0].to(device()), data.train_labels.to(device())
    scored = data.heldout_images[:, 0].to(device()), data.heldout_labels.to(device())
    return (28, data.classes, 1), train, {"": scored}


def _generator(seed: int, part: int, heldout: Heldout) -> torch.Generator:
    """Seed the generator of the sequences to train on (part 0) or to score on (part 1, by ``heldout``)."""
    return torch.Generator().manual_seed(4 * seed + part + 2 * (part == 1 and heldout == "validation"))
