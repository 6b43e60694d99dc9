"""The same function with every filter of unit length."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

import rsam

__all__ = ["filters", "on_spheres"]


def filters(network: nn.Module) -> list[Tensor]:
    """List the kernels of convolutions."""
    return [m.weight for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]


@torch.no_grad()
def on_spheres(network: nn.Sequential) -> nn.Sequential:
    """Copy a chain of blocks, with its filters on unit spheres and the same outputs in evaluation mode.

    Batch norm in evaluation mode divides by running deviations, which shrink with the filters. Without batch norm a
    block whose filters and biases shrink returns less by the same factor, since ReLU is positively homogeneous; the
    next layer makes up for it.

    Parameters
    ----------
    network : torch.nn.Sequential
        Of :func:`~benchmarks.workloads.networks.chain.chain`, with plain weights.

    Returns
    -------
    torch.nn.Sequential
        Its filters are parameters on :class:`rsam.geometry.KernelSphere`.
    """
    network = copy.deepcopy(network)
    factors: Tensor | None = None  # what the outputs of the last block have to be multiplied by
    for name, part in network.named_children():
        if name.startswith("block"):
            convolution = part.get_submodule("convolution")
            _multiply_inputs(convolution, factors)
            factors = _normalise(convolution, getattr(part, "norm", None))
        elif name == "head":
            _multiply_inputs(part, factors)
    return rsam.nn.constrain(network, rsam.geometry.KernelSphere(), (nn.Conv1d, nn.Conv2d))


def _normalise(convolution: Any, norm: Any) -> Tensor | None:
    """Give filters unit length; return what the block's outputs have lost by it, unless its batch norm makes up."""
    weight = convolution.weight
    lengths = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    lengths = torch.where(lengths > 0, lengths, 1.0)
    weight /= lengths.reshape(-1, *[1] * (weight.dim() - 1))
    if norm is None:
        convolution.bias /= lengths
        return lengths
    # the batch norm adds its eps to a variance that has shrunk; its own scale makes up for that
    shrunk = norm.running_var / lengths**2
    norm.weight *= torch.sqrt((shrunk + norm.eps) / (norm.running_var + norm.eps)) * lengths
    norm.running_mean /= lengths
    norm.running_var.copy_(shrunk)
    return None


def _multiply_inputs(layer: Any, factors: Tensor | None) -> None:
    """Multiply what a layer makes of each channel of its inputs."""
    if factors is None:
        return
    if layer.weight.dim() == 2:  # the head sees each channel at several positions
        factors = factors.repeat_interleave(layer.weight.shape[1] // len(factors))
    layer.weight *= factors.reshape(1, -1, *[1] * (layer.weight.dim() - 2))
