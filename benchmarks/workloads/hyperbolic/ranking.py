"""Measure how well distances rank related nodes before unrelated ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["ranking"]

#: Number of distances in memory at a time.
_ENTRIES = 4_000_000


@torch.no_grad()
def ranking(distances: Callable[[Tensor], Tensor], nodes: int, scored: Tensor, known: Tensor) -> dict[str, float]:
    """Compute mean rank and mean average precision (Nickel and Kiela 2017, section 4.1).

    The rank of an edge from u to v is that of v, by distance from u, among v and all nodes without a known edge from u.
    Precisions are averaged over the edges of a node, then over nodes.

    Parameters
    ----------
    distances : callable
        Takes a part of the nodes; returns their distances to all nodes, shape ``(len(part), nodes)``.
    nodes : int
        Number of nodes.
    scored : Tensor
        Edges to rank, shape ``(edges, 2)``.
    known : Tensor
        Edges that do not count as wrong answers, the scored ones included.

    Returns
    -------
    dict of str to float
        ``"mean_rank"``, at least 1, and ``"map"``, in [0, 1].

    Raises
    ------
    torch.linalg.LinAlgError
        If a distance is nan.
    """
    starts = scored[:, 0].unique()
    ranks: list[Tensor] = []
    precisions: list[Tensor] = []
    by_start = scored[scored[:, 0].argsort(stable=True)]
    known = known[known[:, 0].argsort(stable=True)]
    for some in starts.split(max(1, _ENTRIES // nodes)):
        distance = distances(some)
        if distance.isnan().any():  # nan would count as the farthest
            raise torch.linalg.LinAlgError("a distance is not a number")  # type: ignore[attr-defined]
        wrong = distance.clone()
        wrong[torch.arange(len(some), device=some.device), some] = torch.inf
        of_known = _within(known, some)
        wrong[torch.searchsorted(some, of_known[:, 0].contiguous()), of_known[:, 1]] = torch.inf

        edges = _within(by_start, some)
        rows = torch.searchsorted(some, edges[:, 0].contiguous())
        counts = torch.bincount(rows, minlength=len(some))
        columns = torch.arange(len(edges), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        # one row per node: distances of its scored edges in order, padded with infinity
        right = distance.new_full((len(some), int(counts.max())), torch.inf)
        right[rows, columns] = distance[rows, edges[:, 1]]
        right = right.sort(1).values.contiguous()
        # a wrong answer at the same distance counts as nearer: an embedding in a single point must not score well
        bins = torch.searchsorted(right, wrong)
        counted = torch.zeros(len(some), right.shape[1] + 1, dtype=torch.long, device=right.device)
        nearer = counted.scatter_add_(1, bins, torch.ones_like(bins)).cumsum(1)[:, :-1]
        place = torch.arange(1, right.shape[1] + 1, device=right.device)
        real = place <= counts[:, None]
        ranks.append((nearer + 1)[real])
        precisions.append((place / (nearer + place) * real).sum(1) / counts)
    return {
        "mean_rank": float(torch.cat(ranks).double().mean()),
        "map": float(torch.cat(precisions).double().mean()),
    }


def _within(edges: Tensor, some: Tensor) -> Tensor:
    """Select the edges that start at one of the given nodes; both arguments are sorted."""
    starts = edges[:, 0].contiguous()
    first = torch.searchsorted(starts, some[0])
    candidates = edges[first : torch.searchsorted(starts, some[-1], right=True)]
    place = torch.searchsorted(some, candidates[:, 0].contiguous()).clamp(max=len(some) - 1)
    return candidates[some[place] == candidates[:, 0]]
