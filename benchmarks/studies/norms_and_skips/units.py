"""The loss as a function of the directions of filters, each in units of its own norm."""

from __future__ import annotations

from collections.abc import Callable

import geoopt
import torch
from torch import Tensor, nn

import rsam

__all__ = ["in_units", "kernels"]


def kernels(network: nn.Module) -> dict[str, Tensor]:
    """Return the kernels of convolutions by name."""
    return {name: p for name, p in network.named_parameters() if p.dim() == 4}


@torch.no_grad()
def in_units(network: nn.Module) -> tuple[Callable[[Tensor], Tensor], list[tuple[str, Tensor]]]:
    """Return a network as a function of filters on unit spheres, and these filters.

    Each is multiplied by the norm that it has now, so the function is the network's. No part of the network has to make
    up for a change of norm: this works without batch norm too, where a shortcut keeps filters from being rescaled.
    Where batch norm divides by the statistics of the batch, the norms make no difference, and this is the filters'
    Riemannian geometry on unit spheres. Everywhere else tangents are measured in units of the filters' norms, as in the
    filter-normalised landscapes of Li et al. (2018): multiplying all filters of a layer, and dividing those of the next
    one, changes nothing.

    Parameters
    ----------
    network : torch.nn.Module
        With plain weights, and no filter that is zero.

    Returns
    -------
    callable, list of (str, Tensor)
        The function, and its parameters.
    """
    norms = {name: torch.linalg.vector_norm(p, dim=(1, 2, 3), keepdim=True) for name, p in kernels(network).items()}
    sphere = rsam.geometry.KernelSphere()
    units = {name: geoopt.ManifoldParameter(p / norms[name], manifold=sphere) for name, p in kernels(network).items()}

    def function(inputs: Tensor) -> Tensor:
        weights = {name: norms[name] * unit for name, unit in units.items()}
        return torch.func.functional_call(network, weights, (inputs,))

    return function, list(units.items())
