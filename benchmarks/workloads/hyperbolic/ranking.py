"""How well distances rank what is related before what is not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["ranking"]

#: Distances that are held at a time.
_ENTRIES = 4_000_000


@torch.no_grad()
def ranking(distances: Callable[[Tensor], Tensor], nodes: int, scored: Tensor, known: Tensor) -> dict[str, float]:
    """Compute mean rank and mean average precision (Nickel and Kiela 2017, section 4.1).

    For an edge from u to v: the rank of v among all nodes that u is not known to be related to, by distance from u.
    The precision is averaged over the edges of a node, then over nodes.

    Parameters
    ----------
    distances : callable
        Takes some nodes, returns their distances to all: shape ``(len(some), nodes)``.
    nodes : int
        How many there are.
    scored : Tensor
        Edges to rank, shape ``(edges, 2)``.
    known : Tensor
        Edges that are no wrong answers; they contain the scored ones.

    Returns
    -------
    dict of str to float
        ``"mean_rank"``, at least 1, and ``"map"``, in [0, 1].

    Raises
    ------
    torch.linalg.LinAlgError
        If a distance is not a number.
    """
    starts = scored[:, 0].unique()
    ranks: list[Tensor] = []
    precisions: list[Tensor] = []
    by_start = scored[scored[:, 0].argsort(stable=True)]
    known = known[known[:, 0].argsort(stable=True)]
    for some in starts.split(max(1, _ENTRIES // nodes)):
        distance = distances(some)
        if distance.isnan().any():  # which would count as farther than all
            raise torch.linalg.LinAlgError("a distance is not a number")  # type: ignore[attr-defined]
        wrong = distance.clone()
        wrong[torch.arange(len(some), device=some.device), some] = torch.inf
        of_known = _within(known, some)
        wrong[torch.searchsorted(some, of_known[:, 0].contiguous()), of_known[:, 1]] = torch.inf

        edges = _within(by_start, some)
        rows = torch.searchsorted(some, edges[:, 0].contiguous())
        counts = torch.bincount(rows, minlength=len(some))
        columns = torch.arange(len(edges), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        # a row a node, its scored edges by distance, infinity behind
        right = distance.new_full((len(some), int(counts.max())), torch.inf)
        right[rows, columns] = distance[rows, edges[:, 1]]
        right = right.sort(1).values.contiguous()
        # wrong ones that are as near count as nearer: an embedding of all nodes in one point ranks nothing
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
    """Choose edges that start at one of some nodes; both are sorted."""
    starts = edges[:, 0].contiguous()
    first = torch.searchsorted(starts, some[0])
    found = edges[first : torch.searchsorted(starts, some[-1], right=True)]
    place = torch.searchsorted(some, found[:, 0].contiguous()).clamp(max=len(some) - 1)
    return found[some[place] == found[:, 0]]
