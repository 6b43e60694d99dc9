"""Classify digits from few labels by hyperplanes of the Poincaré ball, with geoopt's own layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import geoopt
import torch
from geoopt.layers.stereographic import Distance2StereographicHyperplanes
from torch import Tensor, nn

from benchmarks.data import Dataset, load
from benchmarks.machine import device
from benchmarks.workloads.problem import Heldout, Problem, shuffled
from benchmarks.workloads.scoring import accuracies

__all__ = ["FewLabels", "HyperbolicClassifier"]

PER_CLASS, BATCH = 10, 50


class HyperbolicClassifier(nn.Module):
    """Network of a hidden layer, a map of its features to the ball, and signed distances to one hyperplane per class.

    Parameters
    ----------
    inputs, dimension, classes : int
        Numbers of inputs, of features and of classes.
    """

    def __init__(self, inputs: int, dimension: int, classes: int) -> None:
        super().__init__()
        self.ball = geoopt.PoincareBall()
        self.hidden = nn.Linear(inputs, 64)
        self.features = nn.Linear(64, dimension)
        self.planes = Distance2StereographicHyperplanes(dimension, classes, ball=self.ball, init_std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits of examples of any shape."""
        hidden = self.hidden(x.flatten(1)).relu()
        return self.planes(self.ball.expmap0(self.features(hidden)))


@dataclass(frozen=True)
class FewLabels:
    """scikit-learn's digits with ten labelled images per class, drawn by the seed, and ten more for validation.

    Attributes
    ----------
    dimension : int
        Dimension of the ball.
    """

    dimension: int

    def load(self) -> Dataset:
        """Load the digits."""
        return load("digits")

    def prepare(self, seed: int, heldout: Heldout) -> Problem:
        """Prepare network and labelled images of a seed; the score is accuracy."""
        data = self.load()
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(data.train_labels), generator=generator)
        labels = data.train_labels[order]
        of_class = torch.stack([order[labels == c][: 2 * PER_CLASS] for c in range(data.classes)])
        train, validation = of_class[:, :PER_CLASS].flatten(), of_class[:, PER_CLASS : 2 * PER_CLASS].flatten()
        torch.manual_seed(seed)
        model = HyperbolicClassifier(64, self.dimension, data.classes).to(device())
        images, targets = data.train_images.to(device()), data.train_labels.to(device())

        scored = data.heldout_images.to(device()), data.heldout_labels.to(device())
        if heldout == "validation":
            scored = images[validation], targets[validation]
        measured = images[train], targets[train]
        return Problem(
            model,
            nn.CrossEntropyLoss(),
            shuffled(*measured, BATCH, seed),
            math.ceil(len(train) / BATCH),
            lambda: accuracies(model, {"": scored, "train_": measured}),
            measured,
        )
