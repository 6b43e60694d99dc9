"""Few labels, classified by hyperplanes of the Poincaré ball, with geoopt's own layer."""

from __future__ import annotations

import math

import geoopt
import torch
from geoopt.layers.stereographic import Distance2StereographicHyperplanes
from torch import Tensor, nn

from benchmarks.data import load
from benchmarks.machine import device
from benchmarks.tasks.trial import Trial
from benchmarks.workloads.problem import Problem, shuffled
from benchmarks.workloads.scoring import accuracy, cosine

__all__ = ["HyperbolicClassifier", "few_labels"]

PER_CLASS, BATCH = 10, 50


class HyperbolicClassifier(nn.Module):
    """A hidden layer, its features carried to the ball, signed distances to a hyperplane a class.

    Parameters
    ----------
    inputs, dimension, classes : int
        Sizes.
    """

    def __init__(self, inputs: int, dimension: int, classes: int) -> None:
        super().__init__()
        self.ball = geoopt.PoincareBall()
        self.hidden = nn.Linear(inputs, 64)
        self.features = nn.Linear(64, dimension)
        self.planes = Distance2StereographicHyperplanes(dimension, classes, ball=self.ball, init_std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of examples of any shape."""
        hidden = self.hidden(x.flatten(1)).relu()
        return self.planes(self.ball.expmap0(self.features(hidden)))


def few_labels(trial: Trial) -> Problem:
    """scikit-learn's digits with ten labels a class, which the seed draws; ten more for validation."""
    data = load("digits")
    generator = torch.Generator().manual_seed(trial.seed)
    order = torch.randperm(len(data.train_labels), generator=generator)
    labels = data.train_labels[order]
    of_class = torch.stack([order[labels == c][: 2 * PER_CLASS] for c in range(data.classes)])
    train, heldout = of_class[:, :PER_CLASS].flatten(), of_class[:, PER_CLASS : 2 * PER_CLASS].flatten()
    model = HyperbolicClassifier(64, trial.size, data.classes).to(device())
    images, targets = data.train_images.to(device()), data.train_labels.to(device())

    scored = data.heldout_images.to(device()), data.heldout_labels.to(device())
    if trial.heldout == "validation":
        scored = images[heldout], targets[heldout]
    measured = images[train], targets[train]
    return Problem(
        model,
        nn.CrossEntropyLoss(),
        shuffled(*measured, BATCH, trial.seed),
        math.ceil(len(train) / BATCH),
        lambda: accuracy(model, {"": scored, "train_": measured}),
        measured,
        cosine,
    )
