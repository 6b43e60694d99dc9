"""Search for distances to the decision boundary along geodesics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import geoopt
import torch
from torch import Tensor, nn

from rsam.errors import NotFinite
from rsam.evaluation.parameters import as_integer
from rsam.margins.first_order import (
    check_classes,
    check_interaction,
    difference_of,
    gradients_of,
    lowest,
    spaces_of,
)
from rsam.margins.network import INPUT, OUTPUT, Data, Network, full
from rsam.margins.spaces import Space, pairing, sizes
from rsam.margins.statistics import recorded

__all__ = ["distances"]

_HALVINGS = 30
_WIDENINGS = 14


def distances(
    model: nn.Module,
    data: Data,
    layers: Sequence[str] = (INPUT,),
    *,
    steps: int = 20,
    manifolds: Mapping[str, geoopt.Manifold] | None = None,
    subspaces: Mapping[str, Tensor] | None = None,
    progressbar: bool = False,
) -> dict[str, Tensor]:
    r"""Search for the distances of all examples to the decision boundary, at layers of a classifier.

    The boundary is where :math:`\delta = f_y - \max_{j \ne y} f_j` changes its sign. The search linearises the boundary
    repeatedly, in the tangent space at the example's representation, where geodesics are rays. The first half of the
    steps goes from the present point to the nearest point of the linearised boundary, as DeepFool does; the first step
    is the first-order margin. The second half goes to the point of the linearised boundary that is nearest to the
    example (Hasofer and Lind 1974), in shortened steps where these lead away. In between and at the end rays are
    bisected. So each result is the geodesic distance to a point of the boundary; on a manifold without a logarithm it
    is the length of the geodesic that was searched, which may go round the manifold. It is an upper bound of the
    distance to the boundary, and equal to it if the steps find the nearest point. The search costs ``steps`` gradients
    and about 140 evaluations for each layer and batch.

    Parameters
    ----------
    model, data, layers : as for :func:`margins`
        The network, its data, and the layers to search at, without ``"output"``.
    steps : int
        Number of linearisations.
    manifolds, subspaces : as for :func:`margins`
        Manifolds of layers, and directions to which the search is confined.
    progressbar : bool
        Show a bar over the batches.

    Returns
    -------
    dict of str to Tensor
        For each layer a tensor ``(examples,)``: geodesic distances, negative for wrong classifications, and infinite
        where the search finds no boundary. They are not divided by a total variation.

    Raises
    ------
    TypeError, ValueError, UnsupportedOperation
        As :func:`margins`, except that a gradient may vanish.
    NotFinite
        If logits are not finite.

    Examples
    --------
    >>> import torch, rsam
    >>> class Disc(torch.nn.Module):
    ...     def forward(self, x):  # class 1 within the unit disc
    ...         inside = 1 - x.square().sum(1)
    ...         return torch.stack((torch.zeros_like(inside), inside), 1)
    >>> data = torch.tensor([[0.5, 0.0], [2.0, 0.0]]), torch.tensor([1, 0])
    >>> rsam.margins.distances(Disc(), data)
    {'input': tensor([0.5000, 1.0000])}
    >>> rsam.margins.margins(Disc(), data, normalize=False)  # to first order
    {'input': tensor([0.7500, 0.7500])}
    """
    network = Network(model, layers)
    if OUTPUT in network.layers:
        raise ValueError("layer 'output' is no place to search in; its margins are those of rsam.margins.margins")
    steps = as_integer("steps", steps, 1)
    spaces = spaces_of(network.layers, manifolds, subspaces)
    parts: dict[str, list[Tensor]] = {name: [] for name in network.layers}
    checked = False
    with network.evaluating(data):
        for inputs, targets in network.batches(data, "distances", progressbar):
            logits, values = network.run(inputs)
            labels = check_classes(targets, logits)
            differences = difference_of(logits, labels)
            if not torch.isfinite(lowest(differences, labels)[0]).all():  # logits of classes that are masked are -inf
                raise NotFinite("logits are not finite")
            if not checked and len(labels) > 1:
                check_interaction(differences, labels, values)
                checked = True
            for name, space in spaces.items():
                space.check(values[name], len(labels))
                parts[name].append(_Search(network, space, name, inputs, labels, values[name].detach()).run(steps))
    by_layer = {name: torch.cat(part) for name, part in parts.items()}
    return recorded(by_layer, manifolds, subspaces, search_steps=steps)


class _Linearised(NamedTuple):
    """Linearised boundary at a tangent."""

    there: Tensor  # point of the boundary nearest to the tangent
    nearest: Tensor  # point of the boundary nearest to the origin, which is the example
    remaining: Tensor  # distance of the boundary from the tangent


class _Search:
    """Search for a batch at one layer, in the tangent spaces at its representations."""

    def __init__(self, network: Network, space: Space, layer: str, inputs: Any, labels: Tensor, h: Tensor) -> None:
        self.network, self.space, self.layer, self.inputs, self.labels = network, space, layer, inputs, labels
        self.start, self.dtype = full(h), h.dtype

    def difference(self, v: Tensor) -> Tensor:
        """Return the difference of logits at the ends of geodesics."""
        h = self.space.exponential(self.start, v).to(self.dtype)
        logits, _ = self.network.run(self.inputs, {self.layer: h})
        return lowest(difference_of(logits, self.labels), self.labels)[0]

    def run(self, steps: int) -> Tensor:
        """Return signed distances."""
        start = torch.zeros_like(self.start)
        with torch.no_grad():  # without a graph, as logits are of what is given if all parameters are frozen
            at_start = self.difference(start)
        best, shortest = start, torch.full_like(at_start, torch.inf)
        v = start
        approaches = (steps + 1) // 2
        for i in range(approaches):
            v = self.linearised(v).there
            if i in (0, approaches - 1):
                best, shortest = self.shorter(v, at_start, best, shortest)
        # go on from the boundary point found before, if the last steps have left the boundary
        v = self.improved(torch.where(_column(shortest < torch.inf, v), best, v), steps - approaches)
        _, shortest = self.shorter(v, at_start, best, shortest)
        sign = torch.where(at_start < 0, -1.0, 1.0).to(shortest.dtype)
        return torch.where(at_start == 0, torch.zeros_like(shortest), sign * shortest)

    def improved(self, v: Tensor, steps: int) -> Tensor:
        """Move from ``v`` to a point of the boundary that is nearer to the example."""
        anchor = target = v
        share = _column(torch.ones(len(v), dtype=v.real.dtype, device=v.device), v)
        least = torch.inf * share
        for _ in range(steps):
            at = self.linearised(v)
            # the length of v plus twice the remaining distance to the boundary
            merit = _column(self.space.norm(self.start, v) + 2 * at.remaining, v)
            better = merit < least
            anchor, target = torch.where(better, v, anchor), torch.where(better, at.nearest, target)
            # halve the step if it overshoots, because the boundary curves away from the example
            least, share = torch.minimum(merit, least), torch.where(better, share, share / 2)
            v = anchor + share * (target - anchor)
        return anchor

    def shorter(self, v: Tensor, at_start: Tensor, best: Tensor, shortest: Tensor) -> tuple[Tensor, Tensor]:
        """Update the best points of the boundary and their distances by those on the rays along ``v``, if nearer."""
        end, length = self.crossing(v, at_start)
        return torch.where(_column(length < shortest, v), end, best), torch.minimum(length, shortest)

    def linearised(self, v: Tensor) -> _Linearised:
        """Linearise the difference of logits at ``v``."""
        v = v.detach().requires_grad_()
        difference = self.difference(v)
        covector = gradients_of(difference.sum(), {self.layer: v}, retain_graph=False)[self.layer]
        size = sizes(covector)
        v, covector, difference = v.detach(), covector / size, difference.detach() / size.flatten()
        tangent = self.space.gradient(self.start, covector)
        square = pairing(covector, tangent)
        slope = _column(square > 0, v)
        there = v - _column(difference / square, v) * tangent
        nearest = _column((pairing(covector, v) - difference) / square, v) * tangent
        remaining = difference.abs() / square.sqrt()
        return _Linearised(torch.where(slope, there, v), torch.where(slope, nearest, v), remaining)

    @torch.no_grad()
    def crossing(self, v: Tensor, at_start: Tensor) -> tuple[Tensor, Tensor]:
        """Return the point where each ray meets a change of sign, and its distance, infinite if there is none."""
        negative = at_start < 0

        def crossed(t: Tensor) -> Tensor:
            difference = self.difference(_column(t, v) * v)
            return torch.where(negative, difference >= 0, difference <= 0)

        high = torch.ones_like(at_start)
        low = torch.zeros_like(at_start)
        reached = crossed(high)
        for i in range(_WIDENINGS):
            wider = torch.full_like(high, 1 + 1e-3 * 2**i)
            low, high = torch.where(reached, low, high), torch.where(reached, high, wider)
            reached = reached | crossed(high)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            beyond = crossed(middle)
            low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
        end = _column(high, v) * v
        length = self.space.reach(self.start, end)
        return end, torch.where(reached & (length > 0), length, torch.full_like(length, torch.inf))


def _column(numbers: Tensor, like: Tensor) -> Tensor:
    """Reshape one number per example to multiply tensors with more dimensions."""
    return numbers.reshape(-1, *[1] * (like.dim() - 1))
