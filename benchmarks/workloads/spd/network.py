"""Classify hand signs from covariance matrices of muscle signals by an SPD network (Huang and Van Gool 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import geoopt
import torch
from torch import Tensor, nn

from benchmarks.data.emg import FIRST, SIGNS, load_emg
from benchmarks.machine import device
from benchmarks.workloads.manifolds import MANIFOLDS
from benchmarks.workloads.problem import Heldout, Problem, shuffled
from benchmarks.workloads.scoring import accuracies

__all__ = ["HandSigns", "SPDNetwork"]

CHANNELS, BATCH, MEASURED = 8, 60, 300
#: Smaller eigenvalues are raised to this value (eq. 4 of Huang and Van Gool).
FLOOR = 1e-3


class SPDNetwork(nn.Module):
    """Network that whitens by a learned SPD matrix, then applies a bilinear map, the logarithm and a linear layer.

    Parameters
    ----------
    channels, features, classes : int
        Side of the matrices before and after the bilinear map, and number of outputs.
    manifold : geoopt.Manifold
        A Stiefel manifold, for the bilinear map.

    Attributes
    ----------
    centre : geoopt.ManifoldParameter
        The SPD matrix that whitens, ``(channels, channels)``; the identity at first.
    bilinear : geoopt.ManifoldParameter
        Matrix ``W`` with orthonormal columns, ``(channels, features)``; features are ``W^T X W`` (eq. 2).
    """

    def __init__(self, channels: int, features: int, classes: int, manifold: geoopt.Manifold) -> None:
        super().__init__()
        spd = geoopt.SymmetricPositiveDefinite()
        self.centre = geoopt.ManifoldParameter(torch.eye(channels, dtype=torch.float64), manifold=spd)
        start = torch.linalg.qr(torch.randn(channels, features, dtype=torch.float64))[0].contiguous()
        self.bilinear = geoopt.ManifoldParameter(start, manifold=manifold)
        triangle = features * (features + 1) // 2
        self.head = nn.Linear(triangle, classes, dtype=torch.float64)
        rows, columns = torch.tril_indices(features, features)
        self.register_buffer("where", rows * features + columns)
        # so that the vector has the norm of the matrix
        self.register_buffer("scale", (2.0 - (rows == columns).double()).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits of SPD matrices ``(n, channels, channels)``."""
        # congruence by the inverse Cholesky factor of the centre maps the centre to the identity
        factor = torch.linalg.cholesky(self.centre)
        x = torch.linalg.solve_triangular(factor, x, upper=False)
        x = torch.linalg.solve_triangular(factor, x.mT, upper=False)
        values, vectors = torch.linalg.eigh(self.bilinear.mT @ x @ self.bilinear)
        logarithm = (vectors * values.clamp(min=FLOOR).log().unsqueeze(-2)) @ vectors.mT
        return self.head(logarithm.flatten(1)[:, self.where] * self.scale)


@dataclass(frozen=True)
class HandSigns:
    """Workload that trains on each person's first session and scores on the second.

    Attributes
    ----------
    metric : {"stiefel", "canonical"}
        Metric of the Stiefel manifold of the bilinear map.
    features : int
        Side of the matrices after the bilinear map.
    """

    metric: str
    features: int

    def load(self) -> object:
        """Load the covariance matrices."""
        return load_emg()

    def prepare(self, seed: int, heldout: Heldout) -> Problem:
        """Prepare network and matrices of a seed; the score is accuracy."""
        covariances, signs, sessions, segments = load_emg()
        first = sessions < FIRST
        # a repeat of a session is a stretch of all five signs; one of six serves for validation
        repeat = torch.div(segments, len(SIGNS), rounding_mode="floor") % 6
        scored = first & (repeat == seed % 6) if heldout == "validation" else ~first
        train = first & ~scored
        torch.manual_seed(seed)
        model = SPDNetwork(CHANNELS, self.features, len(SIGNS), MANIFOLDS[self.metric]()).to(device())
        covariances, signs = covariances.to(device()), signs.to(device())
        inputs, targets = covariances[train], signs[train]
        sets = {"": (covariances[scored], signs[scored]), "train_": (inputs, targets)}
        chosen = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))[:MEASURED]
        return Problem(
            model,
            nn.CrossEntropyLoss(),
            shuffled(inputs, targets, BATCH, seed),
            math.ceil(len(inputs) / BATCH),
            lambda: accuracies(model, sets),
            (inputs[chosen], targets[chosen]),
        )
