"""Find principal components of representations, to confine perturbations to them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rsam.errors import NotFinite
from rsam.evaluation.parameters import as_integer
from rsam.margins.network import INPUT, OUTPUT, Data, Network, full, rows
from rsam.margins.spaces import Space, common_shape

__all__ = ["PrincipalComponents", "principal_components"]

#: Largest size of a representation; the covariance matrix has its square.
_LARGEST = 16384


class PrincipalComponents(NamedTuple):
    """Principal components: directions of largest variance.

    Attributes
    ----------
    directions : Tensor
        Orthonormal columns ``(size of an example, rank)``, by falling variance.
    variances : Tensor
        Variance along each, ``(rank,)``.
    total_variation : Tensor
        Variance along all directions, those left out included; a scalar.

    Examples
    --------
    >>> import torch, rsam
    >>> data = torch.tensor([[2.0, 1.0], [-2.0, 1.0], [2.0, -1.0], [-2.0, -1.0]]), torch.tensor([0, 1, 0, 1])
    >>> components = rsam.margins.principal_components(torch.nn.Linear(2, 2), data, rank=1)
    >>> components.variances, components.total_variation  # 4 of 5 along the first axis
    (tensor([4.]), tensor(5.))
    """

    directions: Tensor
    variances: Tensor
    total_variation: Tensor


def principal_components(
    model: nn.Module, data: Data, rank: int, layer: str = INPUT, *, progressbar: bool = False
) -> PrincipalComponents:
    """Find the leading principal components of the representations at a layer, in one pass.

    Pass their ``directions`` to :func:`margins` and :func:`distances` as a subspace (Mouton et al. 2024).

    Parameters
    ----------
    model, data : as for :func:`margins`
        The network, and its data.
    rank : int
        Number of components; at most the size of an example, and less than the number of examples.
    layer : str
        ``"input"`` or a module.
    progressbar : bool
        Show a bar over the batches.

    Returns
    -------
    PrincipalComponents
        Directions by falling variance, with their variances.

    Raises
    ------
    TypeError, ValueError
        As :func:`margins`; for a bad rank, and for representations of more than 16384 numbers, whose covariances do
        not fit in memory.
    NotFinite
        If representations are not finite.

    Examples
    --------
    >>> import torch, rsam
    >>> data = torch.tensor([[2.0, 0.1], [-2.0, 0.1], [1.0, -0.2], [-1.0, 0.0]]), torch.tensor([0, 1, 0, 1])
    >>> model = torch.nn.Linear(2, 2)
    >>> components = rsam.margins.principal_components(model, data, rank=1)
    >>> components.directions.abs()
    tensor([[0.9998],
            [0.0201]])
    >>> m = rsam.margins.margins(model, data, subspaces={"input": components.directions}, normalize=False)
    """
    network, space = Network(model, (layer,)), Space(layer)
    if layer == OUTPUT:
        raise ValueError("layer must be 'input' or a module; name the last module instead of 'output'")
    rank = as_integer("rank", rank, 1)
    count, mean, scatter, shape = 0, torch.zeros(()), torch.zeros(()), None
    with network.evaluating(data), torch.no_grad():
        for inputs, labels in network.batches(data, "principal components", progressbar):
            h = network.run(inputs)[1][layer]
            space.check(h, len(labels))
            shape = common_shape(layer, shape, h)
            x = rows(full(h))
            if x.shape[1] > _LARGEST or rank > x.shape[1]:
                raise ValueError(
                    f"layer {layer!r} has {x.shape[1]} numbers for each example; rank {rank} must not be larger, and "
                    f"they not more than {_LARGEST}"
                )
            if not count:
                mean, scatter = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1], x.shape[1])
            centre = x.mean(0)
            centred, change, share = x - centre, centre - mean, len(x) / (count + len(x))
            # means and sums of squares are merged as in Variation
            scatter = scatter + centred.mT @ centred.conj() + count * share * torch.outer(change, change.conj())
            mean = mean + share * change
            count += len(x)
    if rank >= count:
        raise ValueError(f"rank {rank} needs more than {rank} examples, got {count}")
    if not torch.isfinite(scatter.abs().sum()):
        raise NotFinite(f"the representations at layer {layer!r} are not finite")
    variances, directions = torch.linalg.eigh(scatter / count)
    return PrincipalComponents(
        directions.flip(1)[:, :rank].contiguous(), variances.flip(0)[:rank].clamp_min(0), variances.sum()
    )
