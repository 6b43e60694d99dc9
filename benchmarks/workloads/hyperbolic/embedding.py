"""Embed a hierarchy with each node near its ancestors (Nickel and Kiela 2017, section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import geoopt
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.data.wordnet import Hierarchy, load_hierarchy
from benchmarks.machine import device
from benchmarks.workloads.hyperbolic.distances import ball_distance, hyperboloid_distance, hyperboloid_distances
from benchmarks.workloads.hyperbolic.ranking import ranking
from benchmarks.workloads.manifolds import MANIFOLDS
from benchmarks.workloads.problem import Batch, Heldout, Problem

__all__ = ["Embedded", "Embedding", "Split", "split"]

NEGATIVES = 20
#: First part of the training, with a hundredth of the learning rate: points find their angles near the origin, where
#: they can still turn.
BURN_IN, BURN_IN_RATE = 0.2, 0.01
#: Part of the remaining edges that is held out for validation.
VALIDATION = 0.1
#: Number of edges on which curvature is measured.
MEASURED = 500
#: Number of edges per step.
BATCH = {"mammals": 512, "animals": 512, "nouns": 4096}


class Embedding(nn.Module):
    """One point of hyperbolic space per node.

    Parameters
    ----------
    nodes, dimension : int
        Number of nodes, and dimension of the space.
    manifold : geoopt.Manifold
        A Poincaré ball or a hyperboloid.

    Attributes
    ----------
    points : geoopt.ManifoldParameter
        Shape ``(nodes, dimension)``, with one more coordinate on a hyperboloid; in double precision, since single
        precision cannot tell points apart far from the origin.
    """

    def __init__(self, nodes: int, dimension: int, manifold: geoopt.Manifold) -> None:
        super().__init__()
        points = torch.empty(nodes, dimension, dtype=torch.float64).uniform_(-1e-3, 1e-3)
        if isinstance(manifold, geoopt.Lorentz):
            points = torch.cat([(1 + points.square().sum(1, keepdim=True)).sqrt(), points], 1)
        self.points = geoopt.ManifoldParameter(points, manifold=manifold)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return the negative distances from each row's first node to its others; ``-inf`` for -1, which is no node."""
        none = nodes[:, 1:] < 0
        # -1 becomes a node other than the first: the distance 0 has no second derivative, and 0 times it would be nan
        others = torch.where(none, nodes[:, 1:2], nodes[:, 1:])
        distance = self._distance(self.points[nodes[:, :1]], self.points[others])
        return (-distance).masked_fill(none, -torch.inf)

    def distances(self, nodes: Tensor) -> Tensor:
        """Compute the distances of some nodes to all, shape ``(len(nodes), all)``."""
        if isinstance(self.points.manifold, geoopt.Lorentz):
            return hyperboloid_distances(self.points[nodes], self.points, self.points.manifold.k)
        return self._distance(self.points[nodes].unsqueeze(1), self.points.unsqueeze(0))

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.points.manifold, geoopt.Lorentz):
            return hyperboloid_distance(x, y, self.points.manifold.k)
        return ball_distance(x, y)


@dataclass(frozen=True)
class Split:
    """Edges to train on, edges to score, and known edges, which scoring does not count as wrong answers.

    Attributes
    ----------
    train, scored, known : Tensor
        Shape ``(edges, 2)`` each.
    """

    train: Tensor
    scored: Tensor
    known: Tensor


def split(edges: Tensor, fraction: float, heldout: str, seed: int) -> Split:
    """Hold out edges so that each node keeps at least one to train on.

    Parameters
    ----------
    edges : Tensor
        All edges, shape ``(edges, 2)``.
    fraction : float
        Part to hold out for the test; at 0 all edges are trained on and scored, which is called reconstruction.
    heldout : {"test", "validation"}
        For validation, a tenth of the other edges is held out and scored, and the test edges are not used.
    seed : int
        Seed of the choice of validation edges.
    """
    if fraction == 0:
        return Split(edges, edges, edges)
    # the same test edges for all seeds, and a larger fraction contains a smaller, so that tuning sees none of them
    test, rest = _hold_out(edges, fraction, np.random.default_rng(5))
    if heldout == "test":
        return Split(rest, test, edges)
    scored, train = _hold_out(rest, VALIDATION, np.random.default_rng([seed, 5]))
    return Split(train, scored, rest)


def _hold_out(edges: Tensor, fraction: float, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    left = np.bincount(edges[:, 0])
    out = np.zeros(len(edges), dtype=bool)
    wanted = round(fraction * len(edges))
    for i in generator.permutation(len(edges)):
        if wanted == 0:
            break
        node = int(edges[i, 0])
        if left[node] > 1:
            left[node] -= 1
            out[i] = True
            wanted -= 1
    chosen = torch.from_numpy(out)
    return edges[chosen], edges[~chosen]


class _Negatives:
    """Sampler of negatives: nodes that a node is not known to descend from, drawn uniformly."""

    def __init__(self, train: Tensor, nodes: int) -> None:
        self.nodes = nodes
        self.codes = (train[:, 0] * nodes + train[:, 1]).sort().values

    def __call__(self, edges: Tensor, generator: torch.Generator) -> Tensor:
        """Append negatives to edges, shape ``(edges, 2 + NEGATIVES)``; -1 where the drawn node was not a negative."""
        drawn = torch.randint(self.nodes, (len(edges), NEGATIVES), generator=generator)
        codes = edges[:, :1] * self.nodes + drawn
        place = torch.searchsorted(self.codes, codes).clamp(max=len(self.codes) - 1)
        wrong = (self.codes[place] == codes) | (drawn == edges[:, :1])
        return torch.cat([edges, drawn.masked_fill(wrong, -1)], 1)


@dataclass(frozen=True)
class Embedded:
    """Workload that embeds a hierarchy, one point per node, by the loss of eq. 5 with 20 negatives.

    Attributes
    ----------
    hierarchy : {"mammals", "animals", "nouns"}
        See :func:`~benchmarks.data.wordnet.load_hierarchy`.
    space : {"poincare", "lorentz"}
        Space of the points: the Poincaré ball or the hyperboloid.
    dimension : int
        Dimension of the space.
    fraction : float
        Part of the edges that is held out for the test; 0 to score the training edges.
    """

    hierarchy: str
    space: str
    dimension: int
    fraction: float = 0.0

    def load(self) -> Hierarchy:
        """Load the hierarchy."""
        return load_hierarchy(self.hierarchy)

    def prepare(self, seed: int, heldout: Heldout) -> Problem:
        """Prepare points, edges and negatives of a seed; the scores are mean rank and mean average precision (MAP)."""
        hierarchy = self.load()
        return _problem(self, hierarchy, split(hierarchy.edges, self.fraction, heldout, seed), seed)


def _problem(workload: Embedded, hierarchy: Hierarchy, edges: Split, seed: int) -> Problem:
    nodes, batch_size = len(hierarchy.names), BATCH[workload.hierarchy]
    torch.manual_seed(seed)
    model = Embedding(nodes, workload.dimension, MANIFOLDS[workload.space]()).to(device())
    negatives = _Negatives(edges.train, nodes)

    def with_negatives(chosen: Tensor, generator: torch.Generator) -> Batch:
        lines = negatives(chosen, generator).to(device())
        return lines, torch.zeros(len(lines), dtype=torch.long, device=lines.device)

    def batches(epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
        for chosen in torch.randperm(len(edges.train), generator=generator).split(batch_size):
            yield with_negatives(edges.train[chosen], generator)

    generator = torch.Generator().manual_seed(seed)
    measured = edges.train[torch.randperm(len(edges.train), generator=generator)[:MEASURED]]
    return Problem(
        model,
        nn.CrossEntropyLoss(),
        batches,
        math.ceil(len(edges.train) / batch_size),
        lambda: ranking(model.distances, nodes, edges.scored.to(device()), edges.known.to(device())),
        with_negatives(measured, generator),
        schedule=_burn_in_then_fall,
    )


def _burn_in_then_fall(progress: float) -> float:
    return BURN_IN_RATE if progress < BURN_IN else min(1.0, 2 * (1 - progress))
